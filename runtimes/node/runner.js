'use strict';
// Runs one function of a Node.js module in a sandbox, call after call, or several at a time.
//
// It loads the handler once, then answers each call with what the handler returned or threw. It knows nothing of limits
// and deadlines: the host enforces them from outside. What is rarely needed is loaded where it is needed.

const { Channel, KIND, ProtocolError } = require('./channel.js');

const FD = 3;
const EX_SOFTWARE = 70;
const JSON_TYPE = 'application/json';
const LINES_TYPE = 'application/x-ndjson';
const TEXT_TYPE = 'text/plain; charset=utf-8';
const BYTES_TYPE = 'application/octet-stream';

// All that is known of a call except its event.
class Context {
  #controller = null;

  constructor(facts) {
    Object.assign(this, facts);
    this.cause = { ...facts.cause, headers: (facts.cause && facts.cause.headers) || {} };
  }

  // Milliseconds until the deadline.
  remaining_ms() {
    return Math.max(0, this.deadline_ms - Date.now());
  }

  // Aborted when nobody wants the result any more; made when it is first asked for.
  get signal() {
    this.#controller ??= new AbortController();
    return this.#controller.signal;
  }

  static cancel(context) {
    context.signal;
    context.#controller.abort();
  }
}

// Calls whose body is still coming, and calls that run.
const coming = new Map();
const running = new Map();
let handler = null;
// Where a call is known to everything that it has started; only needed where calls share the process.
let whose = null;
let greeted = 0;

const describe = (problem) => require('./problem.js').describe(problem);

function fail(call, problem) {
  if (running.delete(call)) channel.tell(KIND.ERROR, true, call, describe(problem));
}

// Something was thrown where no call can catch it: the process is not fit for another one.
function fatal(problem) {
  const told = { ...describe(problem), fatal: true };
  const calls = [...running.keys()];
  running.clear();
  const text = problem && problem.stack ? problem.stack : String(problem);
  process.stderr.write(`${text}\n`);
  if (calls.length === 0) process.exit(1);
  calls.forEach((call, at) => {
    channel.tell(KIND.ERROR, true, call, told, at === calls.length - 1 ? () => process.exit(1) : undefined);
  });
}

function eventOf(how, body) {
  if (how === 'json') return JSON.parse(body.toString('utf8'));
  return how === 'base64' ? body.toString('base64') : null;
}

function bytesOf(value) {
  if (Buffer.isBuffer(value)) return value;
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return value instanceof ArrayBuffer ? Buffer.from(value) : null;
}

function isStream(value) {
  if (value === null || typeof value !== 'object') return false;
  if (typeof value[Symbol.asyncIterator] === 'function') return true;
  return typeof value[Symbol.iterator] === 'function' && typeof value.next === 'function';
}

function jsonOf(value) {
  const text = JSON.stringify(value === undefined ? null : value);
  if (text === undefined) throw new TypeError(`a ${typeof value} has no JSON`);
  return Buffer.from(text);
}

// Sends what an iterator gives, piece by piece. The first piece says whether it is bytes, text or lines of JSON.
async function pour(call, iterable, context) {
  let type = null;
  for await (const piece of iterable) {
    if (!running.has(call)) return;
    let bytes = bytesOf(piece);
    if (type === null) {
      type = bytes ? BYTES_TYPE : typeof piece === 'string' ? TEXT_TYPE : LINES_TYPE;
      channel.tell(KIND.RESULT, false, call, { content_type: type, stream: true });
    }
    if (type === LINES_TYPE) bytes = Buffer.concat([jsonOf(piece), Buffer.from('\n')]);
    else if (typeof piece === 'string') bytes = Buffer.from(piece);
    if (!bytes) throw new TypeError(`a stream of ${type} yielded a ${typeof piece}; yield strings or bytes`);
    if (bytes.length > 0) channel.data(call, bytes, false);
    await channel.taken();
    if (context.cancelled) break;
  }
  if (!running.delete(call)) return;
  if (type === null) channel.result(call, BYTES_TYPE, Buffer.alloc(0));
  else channel.data(call, Buffer.alloc(0), true);
}

function answer(call, value) {
  if (!running.has(call)) return;
  const bytes = bytesOf(value);
  let body = bytes;
  try {
    body ??= jsonOf(value);
  } catch (problem) {
    problem.message =
      `what the handler returned is not JSON: ${problem.message}; ` +
      'return what JSON.stringify takes, a Buffer, or a stream';
    fail(call, problem);
    return;
  }
  running.delete(call);
  channel.result(call, bytes ? BYTES_TYPE : JSON_TYPE, body);
}

async function serve(call, head, body) {
  let event;
  const context = new Context(head.context);
  running.set(call, context);
  try {
    event = eventOf(head.body, body);
  } catch (problem) {
    problem.message = `Node.js cannot read this event: ${problem.message}`;
    fail(call, problem);
    return;
  }
  try {
    const value = await handler(event, context);
    if (isStream(value) && !bytesOf(value)) await pour(call, value, context);
    else answer(call, value);
  } catch (problem) {
    fail(call, problem);
  }
}

function begin(call, head, body) {
  if (whose) whose.run(call, serve, call, head, body);
  else serve(call, head, body);
}

// Output of a call goes under its number; what nobody has started goes the usual way.
function share() {
  const { AsyncLocalStorage } = require('async_hooks');
  whose = new AsyncLocalStorage();
  [process.stdout, process.stderr].forEach((stream, at) => {
    const write = stream.write.bind(stream);
    stream.write = (data, encoding, done) => {
      const call = whose.getStore();
      if (!running.has(call)) return write(data, encoding, done);
      const bytes = bytesOf(data) ?? Buffer.from(data, typeof encoding === 'string' ? encoding : 'utf8');
      channel.log(call, at + 1, bytes);
      const told = typeof encoding === 'function' ? encoding : done;
      if (told) process.nextTick(told);
      return true;
    };
  });
}

async function start(init) {
  Object.assign(process.env, init.env);
  process.chdir(init.code);
  process.on('uncaughtException', fatal);
  process.on('unhandledRejection', fatal);
  try {
    handler = await require('./load.js').load(init.handler, init.code);
  } catch (problem) {
    channel.tell(KIND.INIT_ERROR, false, 0, describe(problem), () => process.exit(0));
    return;
  }
  if (init.concurrency > 1) share();
  channel.tell(KIND.READY, false, 0, {});
}

function hear(kind, end, call, body) {
  if (kind === KIND.BYE) process.exit(0);
  const expected = [KIND.WELCOME, KIND.INIT][greeted];
  if (expected !== undefined) {
    if (kind !== expected) throw new ProtocolError(`kind ${kind} where ${expected} belongs`);
    greeted += 1;
    const told = JSON.parse(body);
    if (kind === KIND.INIT) start(told);
    else if (told.version !== 1) throw new ProtocolError(`version ${told.version}`);
  } else if (kind === KIND.INVOKE && call > 0 && handler && !coming.has(call) && !running.has(call)) {
    const head = JSON.parse(body);
    if (end) begin(call, head, Buffer.alloc(0));
    else coming.set(call, { head, pieces: [] });
  } else if (kind === KIND.DATA && coming.has(call)) {
    const { head, pieces } = coming.get(call);
    pieces.push(body);
    if (!end) return;
    coming.delete(call);
    begin(call, head, pieces.length === 1 ? body : Buffer.concat(pieces));
  } else if (kind === KIND.CANCEL && call > 0) {
    // One that has ended meanwhile needs no telling.
    const context = running.get(call);
    if (!context) return;
    Object.defineProperty(context, 'cancelled', { value: true });
    Context.cancel(context);
  } else {
    throw new ProtocolError(`kind ${kind} of call ${call} where a call begins`);
  }
}

const channel = new Channel(FD, hear, (problem) => {
  if (!problem) process.exit(0);
  process.stderr.write(`runlet: the host broke the protocol: ${problem.message}\n`);
  process.exit(EX_SOFTWARE);
});
channel.tell(KIND.HELLO, false, 0, { versions: [1], features: ['concurrency'], runtime: `node ${process.versions.node}` });
