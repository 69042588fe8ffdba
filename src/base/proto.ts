/**
 * A writer of protocol buffers, just the wire format (https://protobuf.dev/programming-guides/encoding): a field is a
 * varint tag and a varint or a length and bytes.
 */
const text = new TextEncoder();

/** Bytes of one message, built field by field. */
export class MessageWriter {
  private buffer = new Uint8Array(64);
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
    const data =
      typeof value === 'string'
        ? text.encode(value)
        : value instanceof MessageWriter
          ? value.buffer.subarray(0, value.size)
          : value;
    this.varint(field * 8 + 2);
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
    return this.buffer.slice(0, this.size);
  }

  private push(bytes: Uint8Array): this {
    this.reserve(bytes.length);
    this.buffer.set(bytes, this.size);
    this.size += bytes.length;
    return this;
  }

  private reserve(bytes: number): void {
    const needed = this.size + bytes;
    if (needed <= this.buffer.length) return;
    const larger = new Uint8Array(Math.max(needed, 2 * this.buffer.length));
    larger.set(this.buffer.subarray(0, this.size));
    this.buffer = larger;
  }

  private varint(value: number): void {
    this.reserve(10);
    if (value < 0) {
      // Two's complement in 64 bits always takes ten bytes.
      let rest = BigInt.asUintN(64, BigInt(value));
      while (rest > 127n) {
        this.buffer[this.size++] = Number(rest & 127n) | 128;
        rest >>= 7n;
      }
      this.buffer[this.size++] = Number(rest);
      return;
    }
    let rest = value;
    while (rest > 127) {
      this.buffer[this.size++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.buffer[this.size++] = rest;
  }
}
