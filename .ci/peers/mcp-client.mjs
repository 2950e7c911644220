// A client on the official TypeScript SDK, which does what an agent does: it
// looks around, registers, makes a request, and waits for a slow one and gives up
// on another. It prints what came of each step, and at the end all that it
// received, as JSON objects, one a line.
//
//   mcp-client.mjs stdio|http|sse REVISION GATEWAY_URL ENLIST|SERVER_URL [TOKEN]
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import * as modern from "@modelcontextprotocol/client";
import { StdioClientTransport as ModernStdioClientTransport } from "@modelcontextprotocol/client/stdio";

const [over, revision, gateway, where, token] = process.argv.slice(2);
const stateless = revision >= "2026";
const say = (step, more) => console.log(JSON.stringify({ step, ...more }));

const received = [];
const requestInit = { headers: { Authorization: `Bearer ${token}` } };
// What comes over HTTP is kept as it came; over a pipe, message by message.
const fetching = async (url, init) => {
  const headers = new Headers(init?.headers);
  headers.set("Authorization", `Bearer ${token}`);
  const answer = await fetch(url, { ...init, headers });
  received.push(JSON.stringify([...answer.headers]));
  if (!answer.body) {
    return answer;
  }
  const decoder = new TextDecoder();
  const kept = answer.body.pipeThrough(new TransformStream({
    transform(chunk, controller) {
      received.push(decoder.decode(chunk, { stream: true }));
      controller.enqueue(chunk);
    },
  }));
  return new Response(kept, { status: answer.status, statusText: answer.statusText, headers: answer.headers });
};

function transport() {
  switch (over) {
    case "stdio": {
      const Stdio = stateless ? ModernStdioClientTransport : StdioClientTransport;
      return new Stdio({ command: where, args: ["mcp"], env: process.env });
    }
    case "http": {
      const HTTP = stateless ? modern.StreamableHTTPClientTransport : StreamableHTTPClientTransport;
      return new HTTP(new URL(where + "/mcp"), { requestInit, fetch: fetching });
    }
    case "sse":
      return new SSEClientTransport(new URL(where + "/sse"), { requestInit, fetch: fetching, eventSourceInit: { fetch: fetching } });
  }
  throw new Error(`no such transport: ${over}`);
}

const asked = [];
const answer = async (request) => {
  asked.push(request.params.message);
  return { action: "accept", content: {} };
};

const info = { name: "typescript-sdk", version: "1" };
const capabilities = { elicitation: {} };
let client;
if (stateless) {
  client = new modern.Client(info, { capabilities, versionNegotiation: { mode: { pin: revision } } });
  client.setRequestHandler("elicitation/create", answer);
} else {
  client = new Client(info, { capabilities });
  client.setRequestHandler(ElicitRequestSchema, answer);
}

const wire = transport();
await client.connect(wire);
if (over === "stdio") {
  const onmessage = wire.onmessage;
  wire.onmessage = (message, extra) => {
    received.push(JSON.stringify(message));
    onmessage?.(message, extra);
  };
}
const version = stateless ? client.getNegotiatedProtocolVersion() : wire.protocolVersion ?? "";
say("connect", { server: client.getServerVersion()?.name, version, instructions: !!client.getInstructions() });

const { tools } = await client.listTools();
const whole = tools.filter((t) => t.description && t.inputSchema && t.outputSchema && t.annotations);
say("tools", { names: tools.map((t) => t.name), whole: whole.length });

const offers = client.getServerCapabilities() ?? {};
if (offers.resources) {
  const { resources } = await client.listResources();
  for (const { uri } of resources) {
    await client.readResource({ uri });
  }
}
if (offers.prompts) {
  await client.listPrompts();
}
say("resources and prompts");

async function call(name, args, options) {
  const result = await client.callTool({ name, arguments: args }, ...(stateless ? [options] : [undefined, options]));
  return result.structuredContent ?? JSON.parse(result.content[0].text);
}

const lithtrix = await call("lithtrix_register_agent", { agent_name: "scout", owner_identifier: "me@example.com" });
say("register", { handle: lithtrix.handle, code: lithtrix.code });
const lona = await call("lona_register_agent", { agent_id: "my-agent", agent_name: "My Agent" });
say("register where the person is asked", { handle: lona.handle, code: lona.code, asked });
const me = await call("send_request", { credential: "lithtrix/scout", method: "GET", path: "/v1/me" });
say("request", { status: me.status });

const slow = { credential: "lithtrix/scout", method: "GET", path: "/slow" };
let released;
const waited = await call("send_request", slow, { onprogress: () => { released ??= fetch(gateway + "/release"); } });
await released;
say("slow request", { reported: !!released, end: waited.body.slice(-7) });

const giveUp = new AbortController();
let cancelled = false;
try {
  await call("send_request", slow, { signal: giveUp.signal, onprogress: () => giveUp.abort("enough") });
} catch {
  cancelled = giveUp.signal.aborted;
}
await fetch(gateway + "/gone");
say("slow request given up", { cancelled });

await client.close();
say("received", { text: received.join("\n") });
