'use strict';
// From `module.export` to the function: CommonJS and ES modules alike.

const fs = require('fs');
const path = require('path');
const { pathToFileURL } = require('url');

// The order in which a module's file is looked for; deploying has looked for the same.
const ENDS = ['.js', '.mjs', '.cjs'];

function fileOf(module, code) {
  const found = ENDS.map((end) => path.join(code, module + end)).find((file) => fs.existsSync(file));
  if (!found) throw new Error(`there is no file ${module}.js, ${module}.mjs or ${module}.cjs`);
  return found;
}

async function moduleOf(file) {
  if (!file.endsWith('.mjs')) {
    try {
      return require(file);
    } catch (problem) {
      // An ES module by its package.json, or one that awaits while it loads: only import() takes those.
      const code = problem && problem.code;
      if (code !== 'ERR_REQUIRE_ESM' && code !== 'ERR_REQUIRE_ASYNC_MODULE') throw problem;
    }
  }
  return import(pathToFileURL(file).href);
}

async function load(handler, code) {
  const dot = handler.lastIndexOf('.');
  const module = handler.slice(0, dot).replace(/^\.\//, '');
  const name = handler.slice(dot + 1);
  const loaded = await moduleOf(fileOf(module, code));
  const has = (from) => from !== null && from !== undefined && from[name] !== undefined;
  const found = has(loaded) ? loaded[name] : has(loaded && loaded.default) ? loaded.default[name] : undefined;
  if (typeof found === 'function') return found;
  if (found !== undefined) throw new TypeError(`\`${handler}\` is a ${typeof found}, not a function`);
  const names = Object.keys(Object(loaded)).filter((key) => typeof loaded[key] === 'function');
  const there = names.length ? `it exports ${names.slice(0, 10).join(', ')}` : 'it exports no function at all';
  throw new TypeError(`module \`${module}\` has no export \`${name}\`; ${there}`);
}

module.exports = { load };
