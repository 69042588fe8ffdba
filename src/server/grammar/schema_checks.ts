/** Questions about a JSON schema as a whole: whether two of its branches may fit one value, and whether any value of finite size fits. */
import { badParam } from '../errors.js';
import { badKeyword, type Fields, TYPES, typesOf, valuesOf } from './schema_fields.js';

/** What a `$ref` names. @param at where it stands */
export type LookUp = (ref: string, at: string) => unknown;

/** References that are followed from one to the next. */
const MOST_REFERENCES = 64;

/** Exactly one of them must fit: where two may fit one value, no grammar says so. */
export function checkDisjoint(branches: readonly unknown[], at: string, lookUp: LookUp): void {
  const kinds = branches.map((each) => kindsOf(each, at, lookUp));
  for (const [i, a] of kinds.entries())
    for (const b of kinds.slice(i + 1)) {
      const sameTypes = a.types.some((x) => b.types.some((y) => x === y || [x, y].sort().join() === 'integer,number'));
      const told = Object.keys(a.constants).some((name) => {
        const other = b.constants[name];
        return other !== undefined && !a.constants[name]!.some((value) => other.includes(value));
      });
      const apart = a.values && b.values && !a.values.some((value) => b.values!.includes(value));
      if (sameTypes && !told && !apart) throw badKeyword(at, 'two of its schemas may fit one value; use anyOf');
    }
}

function kindsOf(
  schema: unknown,
  at: string,
  lookUp: LookUp,
): { types: readonly string[]; constants: Record<string, string[]>; values: string[] | null } {
  let fields = schema as Fields;
  for (let step = 0; step < MOST_REFERENCES && typeof fields?.$ref === 'string'; step++)
    fields = lookUp(fields.$ref, at) as Fields;
  if (typeof fields !== 'object' || fields === null) return { types: TYPES, constants: {}, values: null };
  const constants: Record<string, string[]> = {};
  const required = Array.isArray(fields.required) ? (fields.required as unknown[]) : [];
  for (const [name, each] of Object.entries((fields.properties ?? {}) as Record<string, Fields>)) {
    const values = valuesOf(each);
    if (values && required.includes(name)) constants[name] = values;
  }
  const values = valuesOf(fields);
  const types = 'type' in fields ? typesOf(fields, at) : TYPES;
  return { types, constants, values };
}

/** Whether a value of finite size fits: a schema may ask for itself without end. */
export function checkFinite(schema: unknown, at: string, lookUp: LookUp): void {
  const open = new Set(['#']);
  if (!finite(schema, { at, lookUp, open }))
    throw badParam(at, 'No value of finite size fits the schema: it asks for itself without end.', 'invalid_schema');
}

interface Known {
  at: string;
  lookUp: LookUp;
  /** References that are being followed. */
  open: ReadonlySet<string>;
}

function finite(schema: unknown, known: Known): boolean {
  const { at, lookUp, open } = known;
  if (typeof schema !== 'object' || schema === null) return schema !== false;
  const fields = schema as Fields;
  if (typeof fields.$ref === 'string') {
    if (open.has(fields.$ref)) return false;
    return finite(lookUp(fields.$ref, at), { ...known, open: new Set([...open, fields.$ref]) });
  }
  for (const name of ['anyOf', 'oneOf'] as const)
    if (Array.isArray(fields[name])) return (fields[name] as unknown[]).some((each) => finite(each, known));
  if (Array.isArray(fields.allOf)) return (fields.allOf as unknown[]).every((each) => finite(each, known));
  if ('const' in fields || 'enum' in fields) return true;
  const types = 'type' in fields ? typesOf(fields, at) : null;
  if (types && types.some((type) => type !== 'object' && type !== 'array')) return true;
  const properties = (fields.properties ?? {}) as Fields;
  const required = Array.isArray(fields.required) ? (fields.required as string[]) : [];
  const objectOk = required.every((name) => !Object.hasOwn(properties, name) || finite(properties[name], known));
  const arrayOk =
    !(Number(fields.minItems ?? 0) > 0 && !finite(fields.items ?? true, known)) &&
    (!Array.isArray(fields.prefixItems) || (fields.prefixItems as unknown[]).every((each) => finite(each, known)));
  if (!types) return objectOk && arrayOk;
  return (types.includes('object') && objectOk) || (types.includes('array') && arrayOk);
}
