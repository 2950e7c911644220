// Registers at the AgentDoor of a base URL with the keys and signatures of the
// protocol's own library, and uses what it is issued: one JSON object a line
// that says what came of each step, and never a secret.
import { buildAuthMessage, generateKeypair, signChallenge } from "@agentdoor/core";

const base = process.argv[2];
const path = process.argv[3]; // a route that wants the key or the token

async function call(step, method, route, { body, bearer } = {}) {
  const headers = {};
  if (body) headers["Content-Type"] = "application/json";
  if (bearer) headers.Authorization = "Bearer " + bearer;
  const answer = await fetch(base + route, { method, headers, body: body && JSON.stringify(body) });
  const text = await answer.text();
  let json = {};
  try {
    json = JSON.parse(text);
  } catch {
    // an answer that is not JSON has no fields
  }
  console.log(JSON.stringify({ step, status: answer.status, code: json.error ?? "", fields: Object.keys(json).sort() }));
  return json;
}

async function main() {
  const keys = generateKeypair();
  const found = await call("discovery", "GET", "/.well-known/agentdoor.json");
  const scopes = found.scopes_available.map((s) => s.id);
  const registration = { public_key: keys.publicKey, scopes_requested: scopes, metadata: { framework: "core" } };

  const begun = await call("register", "POST", found.registration_endpoint, { body: registration });
  const parts = begun.challenge.message.split(":");
  const now = Date.now() / 1000;
  console.log(JSON.stringify({
    step: "challenge",
    ok: parts.slice(0, 3).join(":") === "agentdoor:register:" + begun.agent_id &&
      Math.abs(Number(parts[3]) - now) < 300 && parts.slice(4).join(":") === begun.challenge.nonce &&
      Date.parse(begun.challenge.expires_at) > Date.now(),
  }));
  const verify = found.registration_endpoint + "/verify";
  await call("verify by another key", "POST", verify, {
    body: { agent_id: begun.agent_id, signature: signChallenge(begun.challenge.message, generateKeypair().secretKey) },
  });
  const issued = await call("verify", "POST", verify, {
    body: { agent_id: begun.agent_id, signature: signChallenge(begun.challenge.message, keys.secretKey) },
  });
  await call("verify again", "POST", verify, {
    body: { agent_id: begun.agent_id, signature: signChallenge(begun.challenge.message, keys.secretKey) },
  });
  await call("register again", "POST", found.registration_endpoint, { body: registration });

  const timestamp = new Date().toISOString();
  const auth = await call("auth", "POST", found.auth_endpoint, {
    body: {
      agent_id: begun.agent_id, timestamp,
      signature: signChallenge(buildAuthMessage(begun.agent_id, timestamp), keys.secretKey),
    },
  });
  await call("with the api key", "GET", path, { bearer: issued.api_key });
  await call("with the first token", "GET", path, { bearer: issued.token });
  await call("with the next token", "GET", path, { bearer: auth.token });
  await call("with nothing", "GET", path);
}

main(); // no await outside of a function: this gets bundled
