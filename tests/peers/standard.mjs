// Sends to the hook /hooks/standard, signed by npm's `standardwebhooks`: good, repeated, with changed keys, and bad in each way.

import { Webhook } from "standardwebhooks";
import { expect, flipped, refused, taken } from "./sender.mjs";

const [secret, other] = process.env.HOOK_SECRET.split("\n");
const path = "/hooks/standard";

function message(id, payload, { at = new Date(), keys = [secret] } = {}) {
  const text = JSON.stringify(payload);
  const signatures = keys.map((key) => new Webhook(key).sign(id, at, text));
  const headers = {
    "content-type": "application/json",
    "webhook-id": id,
    "webhook-timestamp": String(Math.floor(at.getTime() / 1000)),
    "webhook-signature": signatures.join(" "),
  };
  return [headers, Buffer.from(text)];
}

const payload = { type: "invoice.paid", data: { name: "é", amount: 7 } };
const stranger = "whsec_" + Buffer.from("0123456789abcdef0123456789").toString("base64");
const ago = (seconds) => ({ at: new Date(Date.now() - seconds * 1000) });

const first = await taken("first", path, ...message("msg_js_1", payload));
const again = await taken("again", path, ...message("msg_js_1", payload));
expect(again.invocations[0].repeated && again.invocations[0].id === first.invocations[0].id, "a repeat ran again");
await taken("the other key", path, ...message("msg_js_2", payload, { keys: [other] }));
await taken("a stranger's key first", path, ...message("msg_js_3", payload, { keys: [stranger, secret] }));
await taken("a little late", path, ...message("msg_js_4", payload, ago(200)));
await refused("a stranger's key", path, ...message("msg_js_5", payload, { keys: [stranger] }));
for (const seconds of [400, -400]) {
  const detail = await refused("the wrong time", path, ...message("msg_js_6", payload, ago(seconds)));
  expect(detail.includes("look at the clocks"), detail);
}
for (let number = 0; number < 16; number++) {
  const [headers, body] = message(`msg_js_bit_${number}`, payload);
  await refused(`bit ${number}`, path, headers, flipped(body, number));
  await refused("another id", path, { ...headers, "webhook-id": "msg_js_x" }, body);
}
console.log(JSON.stringify({ run: 4 }));
