// A receiver of callbacks that checks them with npm's `standardwebhooks`, reads CloudEvents by npm's `cloudevents`, and takes each.
// Prints the port first, then a line of JSON for each request: its path, whether it was good, its id and type.

import { createServer } from "node:http";
import { HTTP } from "cloudevents";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.CALLBACK_SECRET);

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  let [event, good] = [{}, true];
  try {
    event = webhook.verify(body, request.headers);
    if (HTTP.isEvent({ headers: request.headers, body })) {
      const { data, ...attributes } = HTTP.toEvent({ headers: request.headers, body });
      event = { type: attributes.type, data, attributes };
    }
  } catch (error) {
    [event, good] = [{ type: String(error) }, false];
  }
  const line = { path: request.url, good, id: request.headers["webhook-id"], type: event.type, data: event.data, attributes: event.attributes };
  console.log(JSON.stringify(line));
  response.writeHead(200).end("thank you");
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
