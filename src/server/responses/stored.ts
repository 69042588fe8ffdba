/** Responses that were given, for `previous_response_id`. What the model has read of them is in the scheduler's cache, by its ids. */
import type { TemplateMessage } from '../../tokenizers/index.js';

/** Most responses, and most characters of their conversations. */
const MOST = 1000;
const MOST_CHARACTERS = 32 * 2 ** 20;

export interface Stored {
  readonly response: Readonly<Record<string, unknown>>;
  /** The conversation with this answer, without instructions. */
  readonly messages: readonly TemplateMessage[];
}

/** Those asked for longest ago go first. */
export class StoredResponses {
  private readonly entries = new Map<string, Stored & { characters: number }>();
  private characters = 0;

  constructor(
    private readonly most = MOST,
    private readonly most_characters = MOST_CHARACTERS,
  ) {}

  keep(id: string, { response, messages }: Stored): void {
    const characters = JSON.stringify(response).length + JSON.stringify(messages).length;
    this.entries.set(id, { response, messages, characters });
    this.characters += characters;
    for (const oldest of this.entries.keys()) {
      if (this.entries.size <= this.most && this.characters <= this.most_characters) break;
      this.delete(oldest);
    }
  }

  get(id: string): Stored | null {
    const found = this.entries.get(id);
    if (!found) return null;
    this.entries.delete(id);
    this.entries.set(id, found);
    return found;
  }

  /** Whether there was one. */
  delete(id: string): boolean {
    this.characters -= this.entries.get(id)?.characters ?? 0;
    return this.entries.delete(id);
  }
}
