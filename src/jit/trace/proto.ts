/**
 * A writer of protocol buffers, just the wire format (https://protobuf.dev/programming-guides/encoding): a field is a
 * varint tag and a varint or a length and bytes.
 */
const text = new TextEncoder();

/** Bytes of one message, built field by field. */
export class MessageWriter {
  private chunks: Uint8Array[] = [];
  private size = 0;

  /** A varint field; values up to 2^53, negative ones as 64-bit two's complement. */
  int(field: number, value: number): this {
    this.varint(field * 8);
    this.varint(value);
    return this;
  }

  bool(field: number, value: boolean): this {
    return this.int(field, value ? 1 : 0);
  }

  float(field: number, value: number): this {
    this.varint(field * 8 + 5);
    return this.push(new Uint8Array(Float32Array.of(value).buffer));
  }

  /** A length-delimited field: bytes, a string, or a message. */
  bytes(field: number, value: Uint8Array | string | MessageWriter): this {
    const data = typeof value === 'string' ? text.encode(value) : value;
    this.varint(field * 8 + 2);
    if (data instanceof MessageWriter) {
      this.varint(data.size);
      for (const chunk of data.chunks) this.push(chunk);
      return this;
    }
    this.varint(data.length);
    return this.push(data);
  }

  /** A packed repeated varint field. */
  packedInts(field: number, values: readonly number[]): this {
    const inner = new MessageWriter();
    for (const value of values) inner.varint(value);
    return this.bytes(field, inner);
  }

  /** A packed repeated float field. */
  packedFloats(field: number, values: readonly number[]): this {
    return this.bytes(field, new Uint8Array(Float32Array.from(values).buffer));
  }

  /** One entry of a map<string, …> field. */
  entry(field: number, key: string, value: string | MessageWriter): this {
    return this.bytes(field, new MessageWriter().bytes(1, key).bytes(2, value));
  }

  /** The message. */
  finish(): Uint8Array {
    const out = new Uint8Array(this.size);
    let at = 0;
    for (const chunk of this.chunks) {
      out.set(chunk, at);
      at += chunk.length;
    }
    return out;
  }

  private push(chunk: Uint8Array): this {
    this.chunks.push(chunk);
    this.size += chunk.length;
    return this;
  }

  private varint(value: number): void {
    const bytes: number[] = [];
    if (value < 0) {
      // Two's complement in 64 bits always takes ten bytes.
      let rest = BigInt.asUintN(64, BigInt(value));
      while (rest > 127n) {
        bytes.push(Number(rest & 127n) | 128);
        rest >>= 7n;
      }
      bytes.push(Number(rest));
    } else {
      while (value > 127) {
        bytes.push((value % 128) | 128);
        value = Math.floor(value / 128);
      }
      bytes.push(value);
    }
    this.push(Uint8Array.from(bytes));
  }
}
