/** Version in this package's package.json, which is not beside the code of a bundle; a test keeps the two equal. */
const VERSION = '0.1.0';

/** Version of this package. */
export function packageVersion(): string {
  return VERSION;
}
