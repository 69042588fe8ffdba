/** Sizes of the public models' layers, from mamba2-130m to Codestral Mamba. */
export const PUBLIC_SIZES = [
  [768, 1, 50288],
  [1024, 1, 50288],
  [1536, 1, 50288],
  [2048, 1, 50288],
  [2560, 1, 50288],
  [4096, 8, 32768],
].map(([d, groups, vocabulary]) => {
  const [inner, heads] = [2 * d!, d! / 32];
  const channels = inner + 2 * groups! * 128;
  /** Rows of the input projection, [inner + channels + heads, d]. */
  const projected = inner + channels + heads;
  return { d: d!, groups: groups!, vocabulary: vocabulary!, inner, heads, channels, projected };
});
