/** The syntax tree of a template. */
import type { Value } from './values.js';

/** Arguments of a call, a filter or a test. */
export interface ArgumentNodes {
  readonly positional: readonly Expression[];
  readonly named: readonly (readonly [name: string, value: Expression])[];
  /** *list and **dictionary */
  readonly spread: Expression | null;
  readonly spreadNamed: Expression | null;
}

export type Expression =
  | { readonly type: 'constant'; readonly value: Value }
  | { readonly type: 'name'; readonly name: string }
  | { readonly type: 'list' | 'tuple' | 'concat'; readonly items: readonly Expression[] }
  | { readonly type: 'dict'; readonly entries: readonly (readonly [Expression, Expression])[] }
  /** object.name */
  | { readonly type: 'attribute'; readonly object: Expression; readonly name: string | number }
  /** object[index] */
  | { readonly type: 'item'; readonly object: Expression; readonly index: Expression }
  /** object[start:stop:step] */
  | {
      readonly type: 'slice';
      readonly object: Expression;
      readonly bounds: readonly [Expression | null, Expression | null, Expression | null];
    }
  | { readonly type: 'call'; readonly callee: Expression; readonly args: ArgumentNodes }
  | {
      readonly type: 'filter' | 'test';
      readonly operand: Expression;
      readonly name: string;
      readonly args: ArgumentNodes;
    }
  | { readonly type: 'unary'; readonly operator: string; readonly operand: Expression }
  | { readonly type: 'and' | 'or'; readonly left: Expression; readonly right: Expression }
  | { readonly type: 'binary'; readonly operator: string; readonly left: Expression; readonly right: Expression }
  /** a < b < c, each pair of neighbours compared */
  | { readonly type: 'compare'; readonly first: Expression; readonly rest: readonly (readonly [string, Expression])[] }
  | { readonly type: 'condition'; readonly test: Expression; readonly yes: Expression; readonly no: Expression | null };

/** What a value is given to: a name, several, or an attribute of a namespace. */
export type Target =
  | { readonly type: 'name'; readonly name: string }
  | { readonly type: 'tuple'; readonly items: readonly Target[] }
  | { readonly type: 'namespace'; readonly name: string; readonly attribute: string };

export interface Parameter {
  readonly name: string;
  readonly value: Expression | null;
}

/** A filter of a block: its name and arguments, innermost first. */
export interface FilterCall {
  readonly name: string;
  readonly args: ArgumentNodes;
}

export interface ForNode {
  readonly type: 'for';
  readonly target: Target;
  readonly iterable: Expression;
  readonly test: Expression | null;
  readonly recursive: boolean;
  readonly body: readonly Statement[];
  readonly otherwise: readonly Statement[];
}

export type Statement =
  | { readonly type: 'text'; readonly value: string }
  | { readonly type: 'output'; readonly value: Expression }
  | ForNode
  | {
      readonly type: 'if';
      readonly branches: readonly (readonly [test: Expression, body: readonly Statement[]])[];
      readonly otherwise: readonly Statement[];
    }
  | { readonly type: 'set'; readonly target: Target; readonly value: Expression }
  | {
      readonly type: 'set block';
      readonly target: Target;
      readonly filters: readonly FilterCall[];
      readonly body: readonly Statement[];
    }
  | {
      readonly type: 'macro';
      readonly name: string;
      readonly parameters: readonly Parameter[];
      readonly body: readonly Statement[];
    }
  | {
      readonly type: 'call block';
      readonly callee: Expression;
      readonly args: ArgumentNodes;
      readonly parameters: readonly Parameter[];
      readonly body: readonly Statement[];
    }
  | { readonly type: 'filter block'; readonly filters: readonly FilterCall[]; readonly body: readonly Statement[] }
  | {
      readonly type: 'with';
      readonly values: readonly (readonly [Target, Expression])[];
      readonly body: readonly Statement[];
    }
  | { readonly type: 'break' | 'continue' };
