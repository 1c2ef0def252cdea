'use strict';
// What the code has thrown, as the body of an error frame: type, message and a trace of the user's own frames.

const TEXT_MAX = 1 << 16;
const LINE_MAX = 4000;
const CAUSES = 8;

// JSON takes no lone surrogates; these become what everybody shows for them.
function clean(text) {
  return text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, '\ufffd');
}

function kindOf(problem) {
  if (problem instanceof Error || (problem && typeof problem.stack === 'string')) {
    const made = problem.constructor && problem.constructor.name;
    return problem.name && problem.name !== 'Error' ? String(problem.name) : String(made || problem.name || 'Error');
  }
  if (problem === null || typeof problem !== 'object') return problem === null ? 'null' : typeof problem;
  return (problem.constructor && problem.constructor.name) || 'object';
}

function messageOf(problem) {
  if (problem && typeof problem.message === 'string') return problem.message;
  if (typeof problem === 'string') return problem;
  const text = problem && typeof problem === 'object' ? JSON.stringify(problem) : undefined;
  return text === undefined ? String(problem) : text;
}

// Lines of a stack without those of the runner and of node itself.
function own(stack) {
  return stack
    .split('\n')
    .filter((line) => !(/^\s+at /.test(line) && (line.includes(__dirname + '/') || /\(?node:/.test(line))));
}

function traceOf(problem) {
  const lines = [];
  let link = problem;
  for (let depth = 0; depth < CAUSES && link && typeof link.stack === 'string'; depth += 1) {
    const part = own(link.stack);
    if (depth > 0) part[0] = `Caused by: ${part[0]}`;
    lines.push(...part);
    link = link.cause;
  }
  const kept = [];
  let room = TEXT_MAX - 100;
  for (const line of lines) {
    const cut = clean(line.slice(0, LINE_MAX));
    room -= cut.length + 1;
    if (room < 0) {
      kept.push(`  ... ${lines.length - kept.length} more lines ...`);
      break;
    }
    kept.push(cut);
  }
  return kept;
}

// `part` may fail: what was thrown is anything at all.
function attempt(part, otherwise) {
  try {
    return part();
  } catch {
    return otherwise;
  }
}

function describe(problem) {
  return {
    type: clean(attempt(() => kindOf(problem), 'Error').slice(0, 200)),
    message: clean(attempt(() => messageOf(problem), '(what was thrown cannot be turned into text)').slice(0, TEXT_MAX)),
    trace: attempt(() => traceOf(problem), ['(the stack cannot be turned into text)']),
  };
}

module.exports = { clean, describe };
