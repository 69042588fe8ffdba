/** Saving what was trained. */
import { PeftModel, save_adapter } from '../peft/index.js';
import type { TrainableModel } from './trainable.js';

/** Writes the model, or the adapter that is trained, into a folder. */
export async function saveModel(model: TrainableModel, dir: string): Promise<void> {
  if (model instanceof PeftModel) await save_adapter(model, dir);
  else await model.save_pretrained(dir, { dtype: 'float32' });
}
