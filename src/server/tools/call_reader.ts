/** Reads an answer that may hold calls of tools, as its text comes. */
import { randomUUID } from 'node:crypto';
import { beginningAtEnd } from '../text_ends.js';
import type { CallStyle } from './form.js';
import type { AnswerReader, Delta } from './reader.js';

export class CallReader implements AnswerReader {
  private text = '';
  /** Characters of the text that were read. */
  private at = 0;
  private calls = 0;
  private plain = false;

  constructor(private readonly style: CallStyle) {}

  get called(): boolean {
    return this.calls > 0;
  }

  push(text: string, last: boolean): Delta {
    this.text += text;
    const delta: Delta = {};
    for (;;) {
      const content = this.readContent(last);
      if (content !== '') delta.content = (delta.content ?? '') + content;
      const call = this.plain ? null : this.readCall();
      if (!call) break;
      (delta.tool_calls ??= []).push({
        index: this.calls++,
        id: `call_${randomUUID().replaceAll('-', '').slice(0, 24)}`,
        type: 'function',
        function: call,
      });
    }
    if (last && this.at < this.text.length) {
      // a call that was cut off: told as the text that it is
      delta.content = (delta.content ?? '') + this.text.slice(this.at);
      this.at = this.text.length;
    }
    return delta;
  }

  /** Text up to a call, or to what may be the beginning of one. */
  private readContent(last: boolean): string {
    const { begin } = this.style;
    if (begin === '') {
      if (!this.plain && this.text !== '' && !this.text.startsWith('{')) this.plain = true;
      return this.plain ? this.take(this.text.length) : '';
    }
    const found = this.text.indexOf(begin, this.at);
    if (found >= 0) return this.withoutGap(this.take(found));
    if (last && this.calls === 0) return this.take(this.text.length);
    const held = beginningAtEnd(this.text.slice(this.at), begin);
    return this.withoutGap(this.take(this.text.length - held));
  }

  /** Line ends between calls are none of the answer's content. */
  private withoutGap(text: string): string {
    return this.calls > 0 && text.trim() === '' ? '' : text;
  }

  private take(end: number): string {
    const text = this.text.slice(this.at, end);
    this.at = Math.max(this.at, end);
    return text;
  }

  /** A whole call at the place that is read next. */
  private readCall(): { name: string; arguments: string } | null {
    const { begin, end } = this.style;
    if (!this.text.startsWith(begin, this.at)) return null;
    const start = this.at + begin.length;
    const stop = end === '' ? this.text.length : this.text.indexOf(end, start);
    if (stop < 0) return null;
    try {
      const call = JSON.parse(this.text.slice(start, stop)) as { name: string; arguments: unknown };
      this.at = stop + end.length;
      return { name: call.name, arguments: JSON.stringify(call.arguments) };
    } catch {
      return null; // not whole yet
    }
  }
}
