// npm's graphile-worker with its local queue on the server's own Postgres: adds so many no-op jobs, and prints how many it did in a second.
// Arguments: how many, the directory of the socket.

import pg from "pg";
import { Logger, run, runMigrations } from "graphile-worker";

const [jobs, host] = [Number(process.argv[2]), process.argv[3]];
const pgPool = new pg.Pool({ host, user: "runlet", database: "postgres", max: 6 });
pgPool.on("error", () => {});
const logger = new Logger(() => () => {});
await runMigrations({ pgPool, logger });
await pgPool.query(
  "SELECT graphile_worker.add_jobs(ARRAY(SELECT ROW('noop', '{}'::json, NULL, NULL, NULL, NULL, NULL, NULL)::graphile_worker.job_spec FROM generate_series(1, $1::int)))",
  [jobs],
);
let done = 0;
let finish;
const finished = new Promise((resolve) => (finish = resolve));
const begin = performance.now();
const runner = await run({
  pgPool,
  logger,
  noHandleSignals: true,
  preset: { worker: { concurrentJobs: 24, localQueue: { size: 500 } } },
  taskList: { noop: async () => { if (++done === jobs) finish(); } },
});
await finished;
const took = (performance.now() - begin) / 1000;
await runner.stop();
await pgPool.end();
console.log((jobs / took).toFixed(1));
process.exit(0);
