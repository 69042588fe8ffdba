/**
 * The random numbers of sampling: xoshiro128** 1.1 (Blackman and Vigna, public domain), its state filled by splitmix32
 * from the seed and the number of the row. Every row has a stream of its own and takes one number per token, so what a
 * row says does not depend on the batch it is in, on the size of decoding blocks, or on the engine.
 */
export class RandomStream {
  private readonly s = new Uint32Array(4);

  /**
   * @param seed a non-negative integer below 2^53
   * @param stream which of the seed's streams: the row's number
   */
  constructor(seed: number, stream: number) {
    let state = seed >>> 0;
    const next = (): number => {
      state = (state + 0x9e3779b9) >>> 0;
      let z = state;
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
      return (z ^ (z >>> 15)) >>> 0;
    };
    // The high half of the seed and the stream's number stir the state once more each.
    state = (next() ^ Math.floor(seed / 2 ** 32)) >>> 0;
    state = (next() ^ stream) >>> 0;
    for (let i = 0; i < 4; i++) this.s[i] = next();
  }

  /** A number in [0, 1) with 24 bits, so that it is the same in float32. */
  uniform(): number {
    const s = this.s;
    const x = Math.imul(s[1]!, 5);
    const result = Math.imul((x << 7) | (x >>> 25), 9) >>> 0;
    const t = s[1]! << 9;
    s[2]! ^= s[0]!;
    s[3]! ^= s[1]!;
    s[1]! ^= s[2]!;
    s[0]! ^= s[3]!;
    s[2]! ^= t;
    s[3] = (s[3]! << 11) | (s[3]! >>> 21);
    return (result >>> 8) / 2 ** 24;
  }
}

/** A seed for those who give none. */
export function freshSeed(): number {
  return globalThis.crypto.getRandomValues(new Uint32Array(1))[0]!;
}
