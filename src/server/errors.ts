/** Errors as the API has them: `{"error":{"message","type","param","code"}}` on every path, whatever went wrong. */
import {
  ArgumentError,
  ChatTemplateError,
  DeviceError,
  GenerationError,
  type Mamba2Error,
  TokenizerError,
} from '../base/errors.js';
import {
  QueueFullError,
  SchedulerClosedError,
  StatesFullError,
  UnknownStateError,
} from '../engine/scheduler/errors.js';

export type ErrorType =
  | 'invalid_request_error'
  | 'authentication_error'
  | 'permission_error'
  | 'not_found_error'
  | 'rate_limit_error'
  | 'server_error'
  | 'service_unavailable';

interface Details {
  status?: number;
  type?: ErrorType;
  param?: string | null;
  code?: string | null;
  /** Seconds after which to try again. */
  retry_after?: number;
  /** false tells the official clients not to try again by themselves. */
  retry?: boolean;
  cause?: unknown;
}

/** What a request is answered with when it cannot be served. */
export class ApiError extends Error {
  override name = 'ApiError';
  readonly status: number;
  readonly type: ErrorType;
  readonly param: string | null;
  readonly code: string | null;
  readonly retry_after: number | null;
  readonly retry: boolean;

  constructor(message: string, details: Details = {}) {
    super(message, { cause: details.cause });
    this.status = details.status ?? 400;
    this.type = details.type ?? typeOf(this.status);
    this.param = details.param ?? null;
    this.code = details.code ?? null;
    this.retry_after = details.retry_after ?? null;
    this.retry = details.retry ?? true;
  }

  body(): ErrorBody {
    const { message, type, param, code } = this;
    return { error: { message, type, param, code } };
  }

  /** Header fields that belong to the answer. */
  headers(): Record<string, string> {
    return {
      ...(this.retry_after !== null && { 'retry-after': String(Math.max(1, Math.ceil(this.retry_after))) }),
      ...(!this.retry && { 'x-should-retry': 'false' }),
    };
  }
}

export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null };
}

function typeOf(status: number): ErrorType {
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  if (status === 404) return 'not_found_error';
  if (status === 429) return 'rate_limit_error';
  if (status === 503) return 'service_unavailable';
  return status >= 500 ? 'server_error' : 'invalid_request_error';
}

/** The field of a request that is wrong, or not supported. */
export function badParam(param: string, message: string, code: string | null = null): ApiError {
  return new ApiError(message, { param, code });
}

/** What nothing here can do: refused, and never silently left out. */
export function unsupported(param: string, why: string): ApiError {
  return badParam(param, `'${param}' is not supported: ${why}.`, 'unsupported_parameter');
}

/** Names of options of generate(), and the fields of requests that they come from. */
const FIELDS: Readonly<Record<string, string>> = {
  max_new_tokens: 'max_tokens',
  num_return_sequences: 'n',
  stop_strings: 'stop',
  input_ids: 'prompt',
};

/** Fastify's own errors by their codes; all others of its by their status. */
const FASTIFY: Readonly<Record<string, { message: string; code: string }>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: { message: 'The body of the request is too large.', code: 'request_too_large' },
  FST_ERR_CTP_INVALID_MEDIA_TYPE: {
    message: 'The body must be JSON: send the header Content-Type: application/json.',
    code: 'unsupported_media_type',
  },
  FST_ERR_CTP_EMPTY_JSON_BODY: { message: 'The body of the request is empty; expected JSON.', code: 'invalid_json' },
};

interface FastifyLike {
  code?: unknown;
  statusCode?: unknown;
  message?: unknown;
  validation?: readonly AjvError[];
}

/** What ajv says of a body. */
interface AjvError {
  keyword: string;
  instancePath: string;
  message?: string;
  params: Record<string, unknown>;
}

/** Any error as one of the API. Only what was thrown for the client's sake is told; the rest is 'Internal error'. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof QueueFullError) {
    const after = Number(error.data.retry_after);
    return new ApiError('The server has as many requests waiting as it takes. Try again later.', {
      status: 429,
      code: 'queue_full',
      retry_after: Number.isFinite(after) ? after : 1,
      cause: error,
    });
  }
  if (error instanceof SchedulerClosedError) return shuttingDown();
  if (error instanceof UnknownStateError)
    return new ApiError(error.message, { status: 404, param: 'state', code: 'state_not_found', cause: error });
  if (error instanceof StatesFullError)
    return new ApiError(error.message, { status: 507, code: 'states_full', retry: false, cause: error });
  if (error instanceof DeviceError)
    return new ApiError('The server has not enough memory for this request now. Try again later, with a smaller one.', {
      status: 503,
      code: 'out_of_memory',
      retry_after: 5,
      cause: error,
    });
  if (error instanceof ChatTemplateError)
    return new ApiError(error.message, { param: 'messages', code: 'chat_template', cause: error });
  if (error instanceof GenerationError || error instanceof ArgumentError || error instanceof TokenizerError)
    return ofOption(error);
  const { validation, code, statusCode, message } = (error ?? {}) as FastifyLike;
  if (validation?.[0]) return ofSchema(validation[0]);
  const status = typeof statusCode === 'number' ? statusCode : 500;
  if (status >= 400 && status < 500) {
    const known = typeof code === 'string' ? FASTIFY[code] : undefined;
    const text = known?.message ?? (error instanceof SyntaxError ? 'The body is no valid JSON.' : String(message));
    return new ApiError(text, { status, code: known?.code ?? null, cause: error });
  }
  return new ApiError('Internal error. The server’s log says more.', { status: 500, cause: error });
}

/** No new requests are taken. */
export function shuttingDown(): ApiError {
  return new ApiError('The server is shutting down.', { status: 503, code: 'shutting_down', retry_after: 2 });
}

function ofOption(error: Mamba2Error): ApiError {
  const { option } = error.data;
  const name = typeof option === 'string' ? (FIELDS[option] ?? option) : null;
  return new ApiError(error.message.replace(/^[\w.]+\(\):? /, ''), { param: name, cause: error });
}

/** '/messages/0/role' as a client writes it: messages[0].role. */
function fieldOf(pointer: string): string {
  return pointer
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
    .reduce((path, part) => (/^\d+$/.test(part) ? `${path}[${part}]` : path === '' ? part : `${path}.${part}`), '');
}

function ofSchema({ keyword, instancePath, message, params }: AjvError): ApiError {
  const at = fieldOf(instancePath);
  const within = (name: unknown): string => (at === '' ? String(name) : `${at}.${String(name)}`);
  if (keyword === 'additionalProperties') {
    const name = within(params.additionalProperty);
    return badParam(name, `Unknown field '${name.slice(0, 80)}'.`, 'unknown_parameter');
  }
  if (keyword === 'required') {
    const name = within(params.missingProperty);
    return badParam(name, `Missing field '${name}'.`, 'missing_required_parameter');
  }
  if (at === '') return new ApiError(`The body ${message ?? 'is wrong'}.`, {});
  const values = keyword === 'enum' ? `: ${(params.allowedValues as unknown[]).map((v) => String(v)).join(', ')}` : '';
  const said = (message ?? 'is wrong').replaceAll(',', ' or ');
  return badParam(at, `'${at}' ${said}${values}.`, keyword === 'type' ? 'invalid_type' : 'invalid_value');
}
