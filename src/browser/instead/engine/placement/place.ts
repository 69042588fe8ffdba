/** Where the modules of a model lie in a page, which has one device: all of them there. */
import { DeviceError } from '../../../../base/errors.js';
import type { ModuleTree } from '../../../../engine/placement/modules.js';
import type { Machine, Placement } from '../../../../engine/placement/place.js';
import type { MapRequest } from '../../../../engine/placement/request.js';
import type { RecurrentLM } from '../../../../engine/recurrent_lm.js';

/** @throws DeviceError for a map of several devices, or of another than the first */
export function placeModel(
  _network: RecurrentLM,
  _tree: ModuleTree,
  request: MapRequest,
  { device }: Machine,
): Placement {
  if (request.kind === 'tensors' && (request.size ?? 1) > 1)
    throw new DeviceError(
      `tp_size is ${request.size}, and a page has one device ('${device}'). Several are devices of TensorFlow in Node.js.`,
      { option: 'tp_size', got: request.size, device },
    );
  const asked: number[] =
    request.kind === 'modules'
      ? [...request.modules.values()]
      : request.kind === 'shared' && request.rooms
        ? [...request.rooms.gpu.keys(), ...request.rooms.cpu.keys()]
        : [];
  if (asked.some((index) => index > 0) || (request.kind === 'shared' && asked.length > 1))
    throw new DeviceError(
      `device_map: the model is to lie on several devices, and a page has one ('${device}'). Several are devices of TensorFlow in Node.js.`,
      { option: 'device_map', device },
    );
  return { map: { '': device }, division: null };
}
