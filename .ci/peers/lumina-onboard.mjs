// Onboards at the Lumina of a base URL as a wallet of ethers does, with its
// address spelled in every way that there is, and says what came of it: one
// JSON object a line, and never a key.
import { Signature, Wallet } from "ethers";

const base = process.argv[2];

const upper = (address) => "0x" + address.slice(2).toUpperCase();
const lower = (address) => address.toLowerCase();
// One letter in the other case: right but for the checksum.
const wrong = (address) =>
  address.replace(/[a-f](?=[^a-f]*$)|[A-F](?=[^A-F]*$)/i, (c) =>
    c === c.toLowerCase() ? c.toUpperCase() : c.toLowerCase());
const same = (x) => x;

const cases = [
  { name: "checksummed", spell: same },
  { name: "lower case", spell: lower },
  { name: "upper case", spell: upper },
  { name: "wrong checksum", spell: wrong },
  { name: "message with another spelling", spell: same, signed: lower },
  { name: "signature in upper case", spell: same, form: upper },
  { name: "v of 0 or 1", spell: same, form: (s) => s.slice(0, -2) + "0" + Signature.from(s).yParity },
  { name: "compact signature", spell: same, form: (s) => Signature.from(s).compactSerialized },
];

for (const { name, spell, signed = spell, form = same } of cases) {
  const wallet = Wallet.createRandom();
  const timestamp = Math.floor(Date.now() / 1000);
  const signature = await wallet.signMessage(`Lumina onboarding for ${signed(wallet.address)} at ${timestamp}`);
  const answer = await fetch(base + "/api/v1/agent/onboard", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ walletAddress: spell(wallet.address), signature: form(signature), timestamp, label: "ethers" }),
  });
  const body = await answer.json();
  const said = { name, status: answer.status, code: body.code ?? "" };
  if (answer.status === 201) {
    const keys = await fetch(base + "/api/v1/agent/keys", { headers: { "x-api-key": body.apiKey } });
    said.wallet = body.wallet === lower(wallet.address);
    said.keys = keys.status;
  }
  console.log(JSON.stringify(said));
}
