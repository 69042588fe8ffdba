/** The keyword `pattern` as rules of a grammar. */
import { type Automaton, automatonOf } from './automaton.js';
import { type CodePoints, inString } from './code_points.js';
import { parseRegex, RegexFault } from './regex.js';

/**
 * What stands between the quotes of a JSON string that a pattern fits and that has so many characters.
 * @param names gives the name of a rule, which is written with `set`
 * @returns the name of the rule of the whole; null where no text fits
 * @throws RegexFault for what no automaton has, or what needs too large a one
 */
export function patternRule(
  pattern: string,
  length: { min: number; max: number },
  names: { reserve: () => string; set: (name: string, body: string) => void },
): string | null {
  const automaton = automatonOf(parseRegex(pattern), length);
  return automaton && rulesOf(automaton, names);
}

function rulesOf(
  { states }: Automaton,
  { reserve, set }: { reserve: () => string; set: (name: string, body: string) => void },
): string {
  const rules = states.map(() => reserve());
  const characters = new Map<string, string>();
  const character = (points: CodePoints): string => {
    const body = inString(points);
    if (body === null) throw new RegexFault('tells apart many characters beyond ASCII');
    if (body === 'char') return body;
    const known = characters.get(body);
    if (known !== undefined) return known;
    const name = reserve();
    set(name, body);
    characters.set(body, name);
    return name;
  };
  states.forEach(({ accepts, edges }, at) => {
    // what stays where it is repeats, so that the rules of a long text do not stand in one another
    const loops = edges.filter(({ to }) => to === at).map((edge) => `${character(edge.set)}* `);
    const onward = edges.filter(({ to }) => to !== at).map((edge) => `${character(edge.set)} ${rules[edge.to]}`);
    const ways = [...(accepts ? ['""'] : []), ...onward];
    set(rules[at]!, `${loops.join('')}${ways.length === 1 ? ways[0] : `(${ways.join(' | ')})`}`);
  });
  return rules[0]!;
}
