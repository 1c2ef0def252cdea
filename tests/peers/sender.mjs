// What the programs for node share: requests to the server under test, and what is expected of its answers.

const { RUNLET_URL: url, RUNLET_TOKEN: token } = process.env;

/** Sends a webhook; the body is a Buffer. */
export async function send(path, headers, body) {
  const answer = await fetch(url + path, { method: "POST", headers, body });
  return { status: answer.status, json: await answer.json() };
}

/** Sends a webhook that has to be taken, and looks whether it is on record byte for byte. */
export async function taken(what, path, headers, body, status = 202) {
  const answer = await send(path, headers, body);
  expect(answer.status === status, `${what}: ${answer.status} ${JSON.stringify(answer.json)}`);
  const record = await fetch(`${url}/v1/deliveries/${answer.json.delivery}/body`, {
    headers: { authorization: `Bearer ${token}` },
  });
  expect(body.equals(Buffer.from(await record.arrayBuffer())), `${what}: the stored body differs`);
  return answer.json;
}

/** Sends a webhook that has to be refused for its signature. */
export async function refused(what, path, headers, body) {
  const answer = await send(path, headers, body);
  expect(answer.status === 401 && answer.json.code === "bad_signature", `${what}: ${answer.status} was not refused`);
  return answer.json.detail ?? "";
}

/** The body with one bit of it flipped; which one depends on `number`. */
export function flipped(body, number) {
  const other = Buffer.from(body);
  other[(number * 7919) % other.length] ^= 1 << number % 8;
  return other;
}

export function expect(holds, otherwise) {
  if (!holds) throw new Error(otherwise);
}

/** Runs `work` on all of `list`, a few at a time. */
export async function each(list, work) {
  let next = 0;
  const worker = async () => {
    while (next < list.length) await work(list[next], next++);
  };
  await Promise.all(Array.from({ length: 4 }, worker));
}
