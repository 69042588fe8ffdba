/** Where workers listen: HOST:PORT, as people write it. */
import { isIPv6 } from 'node:net';
import { ArgumentError } from '../../base/errors.js';
import { quote } from '../../base/quote.js';

export interface Address {
  /** A name or an IP address, without brackets. */
  host: string;
  port: number;
}

/** Nobody but this machine reaches it. */
const HERE = '127.0.0.1';

/** @param what for the message, e.g. '--listen' @throws ArgumentError where the text is no HOST:PORT, [IPv6]:PORT or PORT (of 127.0.0.1) */
export function addressOf(text: string, what: string): Address {
  const [, bracketed, plain, digits] = /^(?:(?:\[([^\]]+)\]|([^:[\]/\s]*)):)?(\d{1,5})$/.exec(text.trim()) ?? [];
  const port = Number(digits);
  const host = bracketed ?? (plain || HERE);
  if (digits === undefined || port < 1 || port > 65535 || (bracketed !== undefined && !isIPv6(bracketed)))
    throw new ArgumentError(
      `${what}: got ${quote(text)}, expected HOST:PORT, such as 127.0.0.1:7700 or [::1]:7700, with a port from 1 to 65535.`,
      { got: text },
    );
  return { host, port };
}

/** One text for one address. */
export function textOf({ host, port }: Address): string {
  return `${isIPv6(host) ? `[${host}]` : host}:${port}`;
}
