'use strict';
// Counts: {"to": 5, "pause_ms": 200}. Try it with curl -N.

const { setTimeout: pause } = require('timers/promises');

// What an iterator yields is sent as it comes: strings as text, bytes as bytes, anything else as a line of JSON.
async function* count(to, pauseMs, signal) {
  for (let n = 1; n <= to; n += 1) {
    yield { n, of: to };
    await pause(pauseMs, null, { signal }); // ends early when nobody wants the result any more
  }
}

exports.handler = async (event, context) => {
  const { to = 3, pause_ms: pauseMs = 100 } = event ?? {};
  if (!Number.isInteger(to) || to < 0) throw new RangeError('`to` must be a whole number from 0');
  console.log(`execution ${context.execution} counts to ${to}`); // the log of this call, whatever else runs here
  return count(to, pauseMs, context.signal);
};
