// Events of the official SDK for Node: sends them in both modes, and reads back what the function was given and returned.
import assert from "node:assert";
import { CloudEvent, HTTP } from "cloudevents";

const { RUNLET_URL: url, RUNLET_TOKEN: token, HOOK_SECRET: secret } = process.env;

async function ask(method, path, headers, body) {
  const answer = await fetch(url + path, { method, headers, body });
  assert(answer.ok, `${method} ${path}: ${answer.status} ${answer.ok ? "" : await answer.text()}`);
  return answer;
}

async function result(answer) {
  const id = (await answer.json()).invocations[0].id;
  const bearer = { Authorization: `Bearer ${token}` };
  await (await ask("GET", `/v1/invocations/${id}?wait=60s`, bearer)).text();
  return (await ask("GET", `/v1/invocations/${id}/result`, bearer)).text();
}

let events = 0;
for (const [mode, write] of Object.entries({ binary: HTTP.binary, structured: HTTP.structured })) {
  for (const [data, datacontenttype] of [[{ n: 1, s: "ü" }, "application/json"], ["plain", "text/plain"]]) {
    const sent = new CloudEvent({
      id: `${mode}-${datacontenttype}`, source: "/node/sdk", type: "sdk.test", subject: "plain subject", datacontenttype, data, comexampleextension: "x",
    });
    const message = write(sent);
    const headers = { ...message.headers, Authorization: `Bearer ${secret}` };
    const back = await result(await ask("POST", "/hooks/ce", headers, message.body));
    const seen = HTTP.toEvent({ headers: { "content-type": "application/cloudevents+json" }, body: back });
    for (const name of ["id", "source", "type", "subject", "datacontenttype", "time", "comexampleextension"]) {
      assert.deepStrictEqual(seen[name], sent[name], `${mode} ${name}`);
    }
    assert.deepStrictEqual(seen.data, sent.data, mode);
    events += 1;
  }
}
console.log(JSON.stringify({ events }));
