/** What an answer must look like: `response_format`, `tools` and `tool_choice` of a chat. */
import type { TokenConstraint } from '../../engine/scheduler/types.js';
import type { ChatBody, Tool } from '../bodies.js';
import type { ServerContext } from '../context.js';
import { badParam } from '../errors.js';
import { jsonObjectGrammar, literal, SHARED_RULES } from '../grammar/json_rules.js';
import { schemaGrammar, schemaRules } from '../grammar/json_schema.js';
import { beginningAtEnd } from '../text_ends.js';
import { CallReader } from './call_reader.js';
import type { AnswerReader } from './reader.js';

export interface Form {
  /** What the chat template is told of. */
  tools?: readonly Tool[];
  /** Of each choice. */
  constraint?: (choice: number) => TokenConstraint;
  reader?: () => AnswerReader;
  /** Frees what the constraints hold. */
  dispose(): void;
}

const FREE: Form = { dispose: () => undefined };

/** How a model writes calls: what stands around the JSON of each. */
export interface CallStyle {
  begin: string;
  end: string;
  /** Whether one answer may have several. */
  several: boolean;
}

/** Of Hermes, Qwen and their kin, whose templates write it themselves; of others the JSON alone. */
const TAGGED: CallStyle = { begin: '<tool_call>\n', end: '\n</tool_call>', several: true };
const BARE: CallStyle = { begin: '', end: '', several: false };

/** @param tokens that an answer may have @throws ApiError for a schema that no grammar here holds to, and for tools that the model's template does not know of */
export async function formOf(context: ServerContext, body: ChatBody, tokens?: number): Promise<Form> {
  const format = body.response_format?.type ?? 'text';
  const calls = callsOf(context, body);
  if (format === 'text' && calls === null) return FREE;
  if (format !== 'text' && calls !== null)
    throw badParam(
      'response_format',
      "'response_format' beside 'tools' that may be called is not supported: leave one out, or set tool_choice to 'none'.",
      'unsupported_parameter',
    );
  const grammar = calls ? calls.grammar : formatGrammar(body);
  const rows = await context.grammars.of(grammar);
  const constraint = await rows.constraints(body.n ?? 1, tokens);
  return {
    constraint,
    dispose: () => rows.dispose(),
    ...(calls && { tools: calls.tools, reader: () => new CallReader(calls.style) }),
  };
}

function formatGrammar({ response_format }: ChatBody): string {
  if (response_format!.type === 'json_object') return jsonObjectGrammar();
  const at = 'response_format.json_schema';
  const given = response_format!.json_schema;
  if (given === undefined) throw badParam(at, `Missing field '${at}'.`, 'missing_required_parameter');
  if (given.schema === undefined)
    throw badParam(`${at}.schema`, `Missing field '${at}.schema'.`, 'missing_required_parameter');
  return schemaGrammar(given.schema, `${at}.schema`);
}

interface Calls {
  tools: readonly Tool[];
  style: CallStyle;
  grammar: string;
}

/** What calls there may be; null for none. */
function callsOf({ settings }: ServerContext, { tools, tool_choice, parallel_tool_calls }: ChatBody): Calls | null {
  const offered = tools ?? [];
  const choice = tool_choice ?? (offered.length ? 'auto' : 'none');
  if (typeof choice === 'string' && !['none', 'auto', 'required'].includes(choice))
    throw badParam(
      'tool_choice',
      `'tool_choice' is '${choice.slice(0, 40)}'; expected none, auto, required, or a function.`,
      'invalid_value',
    );
  if (offered.length === 0) {
    if (choice === 'none' || choice === 'auto') return null;
    throw badParam('tool_choice', "'tool_choice' asks for a call, and there are no tools.");
  }
  const template = settings.tokenizer.chat_template;
  if (template !== null && !/\btools\b/.test(template))
    throw badParam(
      'tools',
      "The chat template of this model does not tell it of tools: 'tools' is not supported. Ask for JSON by response_format.",
      'unsupported_parameter',
    );
  if (choice === 'none') return null;
  const style = template?.includes('<tool_call>') ? TAGGED : BARE;
  const wanted =
    typeof choice === 'string' ? offered : offered.filter((tool) => tool.function.name === choice.function?.name);
  if (wanted.length === 0)
    throw badParam('tool_choice', "'tool_choice' names a function that is not among the tools.", 'invalid_value');
  const names = wanted.map((tool) => tool.function.name);
  if (new Set(names).size < names.length) throw badParam('tools', 'Two tools have one name.', 'invalid_value');
  const several = style.several && parallel_tool_calls !== false && typeof choice === 'string';
  return { tools: offered, style, grammar: callGrammar(wanted, style, choice === 'auto', several) };
}

function callGrammar(tools: readonly Tool[], style: CallStyle, optional: boolean, several: boolean): string {
  const rules: string[] = [];
  const alternatives = tools.map((tool, index) => {
    const { name, parameters } = tool.function;
    const root = `tool${index}`;
    rules.push(
      ...schemaRules(
        parameters ?? { type: 'object', properties: {}, additionalProperties: false },
        `tools[${index}].function.parameters`,
        root,
      ),
    );
    return `${literal(`{"name": ${JSON.stringify(name)}, "arguments": `)} ${root} "}"`;
  });
  rules.push(`call ::= ${alternatives.join(' | ')}`);
  const [begin, end] = [literal(style.begin), literal(style.end)];
  rules.push(`calls ::= ${begin} call ${end}${several ? ` ("\\n" ${begin} call ${end})*` : ''}`);
  if (!optional) rules.push('root ::= calls');
  else if (style.begin === '') rules.push('root ::= calls | plain', 'plain ::= "" | [^{ \\n\\t] [^\\x00]*');
  else rules.push(...textThen(style.begin, `call ${end}${several ? ` ("\\n" ${begin} call ${end})*` : ''}`));
  return `${rules.join('\n')}\n${SHARED_RULES}`;
}

/** Rules of a text that may go on for ever; but after `mark` comes what `then` says, and the end. */
function textThen(mark: string, then: string): string[] {
  const characters = Array.from(mark);
  return characters.map((character, matched) => {
    const others = new Map<number, string[]>();
    // after another character, as much of the mark as the text still ends with (Knuth, Morris and Pratt)
    for (const each of new Set(characters)) {
      if (each === character) continue;
      const at = beginningAtEnd(mark.slice(0, matched) + each, mark);
      others.set(at, [...(others.get(at) ?? []), each]);
    }
    const back = [...others]
      .filter(([at]) => at > 0)
      .map(([at, list]) => `[${list.map(inClass).join('')}] ${textRule(at)}`);
    const known = new Set([character, ...[...others].filter(([at]) => at > 0).flatMap(([, list]) => list)]);
    const rest = `[^${[...known].map(inClass).join('')}] ${textRule(0)}`;
    const onward = matched + 1 === characters.length ? then : textRule(matched + 1);
    return `${textRule(matched)} ::= "" | ${[rest, ...back].join(' | ')} | ${literal(character)} ${onward}`;
  });
}

const textRule = (matched: number): string => (matched === 0 ? 'root' : `text${matched}`);

function inClass(character: string): string {
  if (character === '\n') return '\\n';
  return /[\]\\^-]/.test(character) ? `\\${character}` : character;
}
