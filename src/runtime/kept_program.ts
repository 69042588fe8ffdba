/**
 * Files of compiled programs with their checksums. TensorFlow runs what such a file holds as code and asks nothing about it, so a file that
 * was cut or changed must never reach it.
 */
import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { foreign } from '../base/private_folder.js';

/** What a checksum file says of the file beside it. */
interface Sum {
  readonly sha256: string;
  /** What the file system said of the file when it had that checksum, see identity(). */
  readonly seen: string;
}

/** Names that TensorFlow gives to programs. */
export const isProgram = (name: string): boolean => /^xla_compile_cache__[\w.-]+\.pb$/.test(name);

const sumFile = (file: string): string => `${file}.sum`;

/** @returns whether a name is of a checksum */
export const isSum = (name: string): boolean => name.endsWith('.pb.sum');

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/**
 * The start of the operating system that this process lives in. What was written before may have been lost with the power although the file
 * system still gives its size and times; where there is no such name every file counts as unseen.
 */
let boot: string | null = null;
function bootId(): string {
  if (boot !== null) return boot;
  try {
    boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    boot = randomBytes(16).toString('hex');
  }
  return boot;
}

/** All that changes with a file's bytes, as the file system sees it: nobody sets the time of its last change (ctime) at will. */
function identity(file: string): string {
  const stat = fs.lstatSync(file, { bigint: true });
  const why = stat.isFile() ? foreign({ uid: Number(stat.uid), mode: Number(stat.mode) }) : 'is no file';
  if (why) throw new Error(`${file} ${why}`);
  return [stat.dev, stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs, bootId()].join(' ');
}

/** Writes a file whole or not at all. */
function writeWhole(file: string, bytes: string | Uint8Array): void {
  const aside = `${file}.${randomBytes(6).toString('hex')}.part`;
  try {
    fs.writeFileSync(aside, bytes, { flag: 'wx', mode: 0o600 });
    fs.renameSync(aside, file);
  } catch (error) {
    fs.rmSync(aside, { force: true });
    throw error;
  }
}

function writeSum(file: string, sha256: string): void {
  writeWhole(sumFile(file), JSON.stringify({ sha256, seen: identity(file) } satisfies Sum));
}

/** Keeps a program with its checksum. @throws what the file system says */
export function keepProgram(bytes: Uint8Array, file: string): void {
  writeWhole(file, bytes);
  writeSum(file, digest(bytes));
}

/** Whether a file has the bytes that its checksum is of. They are read only if the file system knows of a change, or is newly started. */
export function isWhole(file: string): boolean {
  let sha256: string;
  try {
    const sum = JSON.parse(fs.readFileSync(sumFile(file), 'utf8')) as Sum;
    sha256 = sum.sha256;
    if (sum.seen === identity(file)) return true;
    if (digest(fs.readFileSync(file)) !== sha256) return false;
  } catch {
    return false;
  }
  try {
    writeSum(file, sha256);
  } catch {
    // it is read again next time
  }
  return true;
}

/** Removes a program that cannot be trusted, and its checksum. */
export function removeProgram(file: string): void {
  for (const name of [file, sumFile(file)]) {
    try {
      fs.rmSync(name, { force: true, recursive: true });
    } catch {
      // a folder that may not be written: the file stays, unused
    }
  }
}
