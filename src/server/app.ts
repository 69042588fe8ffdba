/** The routes and what goes before and after them: keys, limits, schemas, errors, the log. */
import * as http from 'node:http';
import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';
import cors from '@fastify/cors';
import swagger from '@fastify/swagger';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { packageVersion } from '../runtime/version.js';
import { hostCheck, Keys } from './auth.js';
import type { ServerContext } from './context.js';
import { ApiError, shuttingDown, toApiError, unsupported } from './errors.js';
import { logOptions } from './log.js';
import type { ServerMetrics } from './metrics.js';
import { chatRoutes } from './routes/chat.js';
import { completionRoutes } from './routes/completions.js';
import { embeddingRoutes } from './routes/embeddings.js';
import { healthRoutes } from './routes/health.js';
import { modelRoutes } from './routes/models.js';
import { pageRoutes } from './routes/page.js';
import { responseRoutes } from './routes/responses.js';
import { stateRoutes } from './routes/states.js';
import { tokenizeRoutes } from './routes/tokenize.js';
import { UNSUPPORTED } from './schemas.js';

/** Paths that are answered while the server comes to its end. */
const ALWAYS = new Set(['/health', '/ready', '/metrics']);

/** Seconds for the head of a request, and for all of it. A request that waits while a program is compiled has come in time. */
const HEAD_SECONDS = 60;
const RECEIVE_SECONDS = 300;

export async function buildApp(context: ServerContext, metrics: ServerMetrics): Promise<FastifyInstance> {
  const { settings } = context;
  const app = fastify({
    logger: logOptions(settings),
    bodyLimit: settings.max_body,
    requestTimeout: RECEIVE_SECONDS * 1000,
    keepAliveTimeout: 75_000,
    http: { headersTimeout: HEAD_SECONDS * 1000, maxHeaderSize: 16 * 1024 },
    routerOptions: { maxParamLength: 300, ignoreTrailingSlash: true },
    genReqId: () => randomUUID(),
    // ours says so itself, in the shape of the API
    return503OnClosing: false,
    forceCloseConnections: true,
    clientErrorHandler,
    // an address that is none, before any route is found
    frameworkErrors: (error, _, reply: FastifyReply) => void answerWith(toApiError(error), reply),
    ajv: {
      customOptions: {
        coerceTypes: false,
        removeAdditional: false,
        useDefaults: false,
        allowUnionTypes: true,
        strictTypes: false,
      },
    },
  });
  // JSON alone: a form of any page may send plain text
  app.removeContentTypeParser(['text/plain', 'application/json']);
  const parse = app.getDefaultJsonParser('error', 'error');
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, text: string, done) => {
    // some clients name the type of a body that they do not send
    if (text === '' && request.routeOptions.schema?.body === undefined) return done(null, undefined);
    return parse(request, text, done);
  });
  app.setSerializerCompiler(() => JSON.stringify);
  app.setErrorHandler((error, request, reply) => {
    const told = toApiError(error);
    if (told.status >= 500 && told.status !== 503) request.log.error({ err: error }, 'failed');
    else request.log.debug({ code: told.code, param: told.param }, 'refused');
    return answerWith(told, reply);
  });
  app.setNotFoundHandler((request) => {
    throw notFound(app, request);
  });
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'tfjs-mamba2',
        version: packageVersion(),
        description: 'Mamba-2 language models, by the API of OpenAI and more.',
      },
      ...(settings.api_keys.length && {
        components: { securitySchemes: { key: { type: 'http' as const, scheme: 'bearer' } } },
        security: [{ key: [] }],
      }),
    },
  });
  if (settings.cors.length)
    await app.register(cors, {
      origin: settings.cors.includes('*') ? '*' : [...settings.cors],
      methods: ['GET', 'POST', 'DELETE'],
      exposedHeaders: ['x-request-id', 'retry-after'],
      maxAge: 600,
    });
  addHooks(app, context);
  metrics.routes(app);
  healthRoutes(app, context);
  modelRoutes(app, context);
  completionRoutes(app, context);
  chatRoutes(app, context);
  responseRoutes(app, context);
  embeddingRoutes(app, context);
  tokenizeRoutes(app, context);
  stateRoutes(app, context);
  app.get('/openapi.json', { schema: { hide: true } }, () => app.swagger());
  if (settings.page) await pageRoutes(app);
  await app.ready();
  return app;
}

function answerWith(error: ApiError, reply: FastifyReply): FastifyReply {
  // a stream tells of its failures itself
  if (reply.raw.headersSent) return reply;
  return reply.code(error.status).headers(error.headers()).send(error.body());
}

function addHooks(app: FastifyInstance, context: ServerContext): void {
  const keys = new Keys(context.settings.api_keys);
  const checkHost = hostCheck(context.settings);
  app.addHook('onRequest', async (request, reply) => {
    void reply.headers({ 'x-request-id': request.id, 'x-content-type-options': 'nosniff' });
    checkHost(request);
    keys.check(request);
    if (!context.ending || ALWAYS.has(request.routeOptions.url ?? '')) return;
    void reply.header('connection', 'close');
    throw shuttingDown();
  });
  app.addHook('preValidation', async (request) => refuseFields(request));
}

/** Fields that others have and that cannot be honoured here are refused, unless they ask for nothing. */
function refuseFields({ body, routeOptions }: FastifyRequest): void {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return;
  const schema = routeOptions.schema?.body as { properties?: object } | undefined;
  const fields = body as Record<string, unknown>;
  for (const [name, value] of Object.entries(fields)) {
    if (Object.hasOwn(schema?.properties ?? {}, name) || !Object.hasOwn(UNSUPPORTED, name)) continue;
    const { why, off } = UNSUPPORTED[name]!;
    if (!off.some((each) => JSON.stringify(each) === JSON.stringify(value))) throw unsupported(name, why);
    delete fields[name];
  }
}

function notFound(app: FastifyInstance, { method, url }: FastifyRequest): ApiError {
  const path = url.split('?')[0]!;
  const allowed = (['GET', 'POST', 'DELETE'] as const).filter(
    (each) => app.findRoute({ method: each, url: path }) ?? null,
  );
  const shown = `${method} ${path.slice(0, 200)}`;
  if (allowed.length)
    return new ApiError(`${shown}: this path takes ${allowed.join(' and ')}.`, {
      status: 405,
      code: 'method_not_allowed',
    });
  return new ApiError(`There is no ${shown}. GET /openapi.json has what there is.`, {
    status: 404,
    code: 'not_found',
    type: 'invalid_request_error',
  });
}

/** What is no HTTP, has too large a head, or comes too slowly. */
function clientErrorHandler(this: unknown, error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const status = error.code === 'HPE_HEADER_OVERFLOW' ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400;
  const message =
    status === 431
      ? 'The head of the request is too large.'
      : status === 408
        ? 'The request came too slowly.'
        : 'This is no HTTP request.';
  const body = JSON.stringify(new ApiError(message, { status, code: 'bad_request' }).body());
  const head = [
    `HTTP/1.1 ${status} ${http.STATUS_CODES[status]}`,
    'content-type: application/json; charset=utf-8',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
}
