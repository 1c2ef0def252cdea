// Sends every example of GitHub's payloads to the hook /hooks/gh, signed by GitHub's own library, then with one bit flipped.

import { createRequire } from "node:module";
import { sign } from "@octokit/webhooks-methods";
import { each, flipped, refused, taken } from "./sender.mjs";

const examples = createRequire(import.meta.url)("@octokit/webhooks-examples");
const list = examples.flatMap(({ name, examples }) => examples.map((payload) => ({ name, payload })));

await each(list, async ({ name, payload }, number) => {
  const body = Buffer.from(JSON.stringify(payload));
  const headers = {
    "content-type": "application/json",
    "user-agent": "GitHub-Hookshot/example",
    "x-github-event": name,
    "x-github-delivery": `example-${number}`,
    "x-hub-signature-256": await sign(process.env.HOOK_SECRET, body.toString()),
  };
  const what = `${name} ${number}`;
  await taken(what, "/hooks/gh", headers, body, name === "ping" ? 200 : 202);
  await refused(what, "/hooks/gh", headers, flipped(body, number));
});

console.log(JSON.stringify({ sent: list.length, pings: list.filter(({ name }) => name === "ping").length }));
