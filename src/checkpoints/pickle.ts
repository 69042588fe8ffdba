/**
 * A restricted unpickler: Python's stack machine (protocols 2 to 5) with the opcodes that torch.save of a state dict
 * uses. It builds plain data and runs nothing: a name outside the short list below ends the reading at once.
 */
import { CheckpointError } from '../base/errors.js';
import { plain, quote } from '../base/quote.js';

/** A name from the pickle, one of ALLOWED. */
class PickleGlobal {
  constructor(readonly name: string) {}
}
/** What a persistent id refers to: torch's ('storage', type, key, location, elements). */
export class PickleStorage {
  constructor(
    readonly type: string,
    readonly key: string,
    readonly elements: number,
  ) {}
}
/** A tensor: a view of a storage, in elements. */
export class PickleTensor {
  constructor(
    readonly storage: PickleStorage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}
}
/** A tuple, told from a list. */
class PickleTuple {
  constructor(readonly items: readonly PickleValue[]) {}
}
type PickleDict = Map<PickleValue, PickleValue>;
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | PickleGlobal
  | PickleStorage
  | PickleTensor
  | PickleTuple
  | PickleValue[]
  | PickleDict;

const STORAGES = ['Half', 'Float', 'BFloat16', 'Double', 'Long', 'Int', 'Short', 'Char', 'Byte', 'Bool'];
const ALLOWED = new Set([
  'collections.OrderedDict',
  'torch._utils._rebuild_tensor_v2',
  'torch._utils._rebuild_parameter',
  ...STORAGES.map((type) => `torch.${type}Storage`),
]);

/** marks the beginning of a run of items on the stack */
const MARK = Symbol('mark');
type Slot = PickleValue | typeof MARK;

/**
 * Reads a pickle.
 * @param bytes data.pkl
 * @param file path, for messages
 * @throws CheckpointError for a name or opcode outside the allowed ones, and for anything malformed
 */
export function unpickle(bytes: Uint8Array, file: string): PickleValue {
  return new Unpickler(bytes, file).run();
}

class Unpickler {
  private readonly data: DataView;
  private readonly stack: Slot[] = [];
  private readonly memo = new Map<number, PickleValue>();
  private at = 0;
  /** the last text read: mostly the name of the tensor being read */
  private near = '';

  constructor(
    private readonly bytes: Uint8Array,
    private readonly file: string,
  ) {
    this.data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  run(): PickleValue {
    while (true) {
      const start = this.at;
      const op = this.bytes[this.take(1)]!;
      // in the order of Python's pickletools
      switch (op) {
        case 0x80: {
          const protocol = this.u8();
          if (protocol < 2 || protocol > 5) throw this.fail(`pickle protocol ${protocol} is not supported`);
          break;
        }
        case 0x95:
          this.take(8);
          break;
        case 0x28:
          this.stack.push(MARK);
          break;
        case 0x2e: {
          const value = this.pop();
          if (this.stack.length !== 0) throw this.fail('the stack is not empty at the end');
          if (this.at !== this.bytes.byteLength) throw this.fail('bytes follow the end');
          return value;
        }
        case 0x30:
          this.pop();
          break;
        case 0x4e:
          this.stack.push(null);
          break;
        case 0x88:
        case 0x89:
          this.stack.push(op === 0x88);
          break;
        case 0x4b:
          this.stack.push(this.u8());
          break;
        case 0x4d:
          this.stack.push(this.data.getUint16(this.take(2), true));
          break;
        case 0x4a:
          this.stack.push(this.data.getInt32(this.take(4), true));
          break;
        case 0x8a:
          this.stack.push(this.long(this.u8()));
          break;
        case 0x47:
          this.stack.push(this.data.getFloat64(this.take(8), false));
          break;
        case 0x8c:
          this.text(this.u8());
          break;
        case 0x58:
          this.text(this.u32());
          break;
        case 0x29:
          this.stack.push(new PickleTuple([]));
          break;
        case 0x85:
        case 0x86:
        case 0x87:
          this.tuple(op - 0x84);
          break;
        case 0x74:
          this.stack.push(new PickleTuple(this.popMarked()));
          break;
        case 0x5d:
          this.stack.push([]);
          break;
        case 0x61: {
          const item = this.pop();
          this.list().push(item);
          break;
        }
        case 0x65: {
          const items = this.popMarked();
          const list = this.list();
          for (const item of items) list.push(item);
          break;
        }
        case 0x7d:
          this.stack.push(new Map());
          break;
        case 0x73: {
          const value = this.pop();
          const key = this.pop();
          this.setItems([key, value]);
          break;
        }
        case 0x75:
          this.setItems(this.popMarked());
          break;
        case 0x71:
          this.memo.set(this.u8(), this.top());
          break;
        case 0x72:
          this.memo.set(this.u32(), this.top());
          break;
        case 0x94:
          this.memo.set(this.memo.size, this.top());
          break;
        case 0x68:
          this.recall(this.u8());
          break;
        case 0x6a:
          this.recall(this.u32());
          break;
        case 0x63: {
          const module = this.line();
          this.global(module, this.line());
          break;
        }
        case 0x93: {
          const name = this.pop();
          const module = this.pop();
          if (typeof name !== 'string' || typeof module !== 'string') throw this.fail('a name is not text');
          this.global(module, name);
          break;
        }
        case 0x52:
          this.reduce();
          break;
        case 0x62:
          this.build();
          break;
        case 0x51:
          this.persistent();
          break;
        default:
          throw this.fail(`opcode 0x${op.toString(16).padStart(2, '0')} at byte ${start} is not allowed`);
      }
    }
  }

  private fail(what: string): CheckpointError {
    const near = this.near ? ` (near ${quote(this.near, 200)})` : '';
    return new CheckpointError(
      `${this.file}: the pickle is not that of a plain state dict: ${what}${near}. Nothing of it was run. If the file is yours, save model.state_dict() with torch.save, or convert it to safetensors.`,
      { file: this.file, tensor: this.near, offset: this.at },
    );
  }

  /** Moves on by `length` bytes; returns where they begin. */
  private take(length: number): number {
    const start = this.at;
    if (start + length > this.bytes.byteLength) throw this.fail('it ends too early');
    this.at = start + length;
    return start;
  }
  private u8(): number {
    return this.bytes[this.take(1)]!;
  }
  private u32(): number {
    return this.data.getUint32(this.take(4), true);
  }

  /** A little-endian two's complement number; a plain number where it fits. */
  private long(length: number): number | bigint {
    const start = this.take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.bytes[start + i]!);
    const signed = length > 0 ? BigInt.asIntN(length * 8, value) : 0n;
    const number = Number(signed);
    return Number.isSafeInteger(number) ? number : signed;
  }

  private text(length: number): void {
    const start = this.take(length);
    this.near = new TextDecoder().decode(this.bytes.subarray(start, start + length));
    this.stack.push(this.near);
  }
  private line(): string {
    const end = this.bytes.indexOf(10, this.at);
    if (end < 0) throw this.fail('it ends inside a name');
    const start = this.take(end + 1 - this.at);
    return new TextDecoder().decode(this.bytes.subarray(start, end));
  }

  private pop(): PickleValue {
    const value = this.stack.pop();
    if (value === undefined || value === MARK) throw this.fail('the stack runs empty');
    return value;
  }
  private top(): PickleValue {
    const value = this.stack.at(-1)!;
    if (value === undefined || value === MARK) throw this.fail('the stack runs empty');
    return value;
  }
  private popMarked(): PickleValue[] {
    const mark = this.stack.lastIndexOf(MARK);
    if (mark < 0) throw this.fail('a mark is missing');
    const items = this.stack.splice(mark);
    items.shift();
    return items as PickleValue[];
  }
  private tuple(length: number): void {
    const items = Array.from({ length }, () => this.pop()).reverse();
    this.stack.push(new PickleTuple(items));
  }
  private list(): PickleValue[] {
    const list = this.top();
    if (!Array.isArray(list)) throw this.fail('items are added to what is no list');
    return list;
  }
  private setItems(items: PickleValue[]): void {
    const dict = this.top();
    if (!(dict instanceof Map)) throw this.fail('keys are set on what is no dict');
    if (items.length % 2 !== 0) throw this.fail('a key has no value');
    for (let i = 0; i < items.length; i += 2) dict.set(items[i]!, items[i + 1]!);
  }
  private recall(index: number): void {
    const value = this.memo.get(index);
    if (value === undefined) throw this.fail(`it refers to an object ${index} that is not there`);
    this.stack.push(value);
  }

  private global(module: string, name: string): void {
    const full = `${module}.${name}`;
    if (!ALLOWED.has(full)) throw this.fail(`it names ${plain(full)}, which is not allowed`);
    this.stack.push(new PickleGlobal(full));
  }

  private reduce(): void {
    const args = this.pop();
    const callee = this.pop();
    if (!(callee instanceof PickleGlobal) || !(args instanceof PickleTuple)) throw this.fail('a call of no function');
    const items = args.items;
    switch (callee.name) {
      case 'collections.OrderedDict':
        if (items.length !== 0) throw this.fail('OrderedDict with arguments');
        this.stack.push(new Map());
        return;
      case 'torch._utils._rebuild_parameter': {
        // (data, requires_grad, backward_hooks)
        const tensor = items[0];
        if (items.length !== 3 || !(tensor instanceof PickleTensor)) throw this.fail('a parameter without a tensor');
        this.stack.push(tensor);
        return;
      }
      case 'torch._utils._rebuild_tensor_v2':
        this.stack.push(this.tensor(items));
        return;
      default:
        throw this.fail(`a call of ${callee.name}`);
    }
  }

  /** (storage, storage_offset, size, stride, requires_grad, backward_hooks[, metadata]) */
  private tensor(items: readonly PickleValue[]): PickleTensor {
    const [storage, offset, shape, strides] = items;
    const sizes = (value: PickleValue | undefined): number[] => {
      const list = value instanceof PickleTuple ? value.items : null;
      if (!list || list.length > 32 || !list.every((n) => Number.isSafeInteger(n) && (n as number) >= 0))
        throw this.fail('a tensor whose shape or strides are no whole numbers');
      return list as number[];
    };
    if (items.length < 6 || items.length > 7 || !(storage instanceof PickleStorage))
      throw this.fail('a tensor without a storage');
    if (!Number.isSafeInteger(offset) || (offset as number) < 0) throw this.fail('a tensor whose offset is no number');
    const [size, stride] = [sizes(shape), sizes(strides)];
    if (size.length !== stride.length) throw this.fail('a tensor with more sizes than strides, or fewer');
    return new PickleTensor(storage, offset as number, size, stride);
  }

  /** State set on an object: a module's state dict has `_metadata`, which says nothing about weights. */
  private build(): void {
    this.pop();
    if (!(this.top() instanceof Map)) throw this.fail('state is set on what is no dict');
  }

  private persistent(): void {
    const id = this.pop();
    const [kind, type, key, , elements] = id instanceof PickleTuple && id.items.length === 5 ? id.items : [];
    if (kind !== 'storage' || !(type instanceof PickleGlobal) || typeof key !== 'string')
      throw this.fail('a persistent id that is no storage');
    if (!/^torch\.\w+Storage$/.test(type.name)) throw this.fail(`a storage of type ${type.name}`);
    if (!Number.isSafeInteger(elements) || (elements as number) < 0) throw this.fail('a storage without a size');
    this.stack.push(new PickleStorage(type.name, key, elements as number));
  }
}
