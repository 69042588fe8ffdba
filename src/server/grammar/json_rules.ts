/** JSON as rules of a grammar (in xgrammar's EBNF): values of any kind, texts of formats, and literals. */
import { CODE_POINT_RULES, withEscapedSpaces } from './code_points.js';
import { integers } from './digits.js';

/** Rules for JSON of any kind, without numbers that no double holds and without halves of surrogate pairs. */
const JSON_RULES = `
sp ::= "" | " "
nl ::= "" | " " | "\\n" [ ]{0,32}
hex ::= [0-9a-fA-F]
char ::= [^"\\\\\\x00-\\x1f\\x7f] | "\\\\" escape
escape ::= ["\\\\/bfnrt] | "u" unit
unit ::= [0-9a-cA-CeEfF] hex hex hex | [dD] [0-7] hex hex
string ::= "\\"" char* "\\""
int ::= "0" | [1-9] [0-9]{0,14}
fraction ::= "" | "." [0-9]{1,15}
exponent ::= "" | [eE] [+\\-]? [0-9]{1,2}
number ::= "-"? int fraction exponent
object ::= "{" nl "}" | "{" nl member ("," nl member)* nl "}"
member ::= string ":" sp value
array ::= "[" nl "]" | "[" nl value ("," nl value)* nl "]"
value ::= object | array | string | number | "true" | "false" | "null"
`;

/** What stands between the quotes of a text of a format. */
export const FORMATS: Readonly<Record<string, string>> = {
  date: 'date',
  time: 'time "Z"',
  'date-time': 'date "T" time "Z"',
  uuid: 'hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}',
  ipv4: 'byte "." byte "." byte "." byte',
  email: '[a-z0-9]{1,32} ("." [a-z0-9]{1,32})? "@" [a-z0-9]{1,32} "." [a-z]{2,8}',
};
const FORMAT_RULES = `
date ::= [12] [0-9]{3} "-" day
day ::= ("01"|"03"|"05"|"07"|"08"|"10"|"12") "-" (d28 | "29" | "30" | "31") | ("04"|"06"|"09"|"11") "-" (d28 | "29" | "30") | "02-" d28
d28 ::= "0" [1-9] | "1" [0-9] | "2" [0-8]
time ::= ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9]
byte ::= ${integers(0, 255).join(' | ')}
`;

/** Any JSON object. */
export function jsonObjectGrammar(): string {
  return `root ::= object\n${JSON_RULES}`;
}

/** Rules that those of schemaRules() name. */
export const SHARED_RULES = JSON_RULES + FORMAT_RULES + CODE_POINT_RULES;

/** A text as a literal of the grammar. */
export function literal(text: string): string {
  const escaped = Array.from(text, (character) => {
    const code = character.codePointAt(0)!;
    if (character === '"' || character === '\\') return `\\${character}`;
    if (code >= 0x20 && code < 0x7f) return character;
    return code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`;
  });
  return `"${escaped.join('')}"`;
}

/** A value as the literal of its JSON. */
export function jsonLiteral(value: unknown): string {
  return literal(withEscapedSpaces(JSON.stringify(value)));
}
