// A real AgentDoor service: the protocol's own server, in front of two routes.
// It prints the URL that it listens on, and ends when standard input does.
import { agentdoor } from "@agentdoor/express";
import express from "express";

// The library announces itself on standard output, which is for the URL.
console.log = console.error;

const app = express();
app.use(agentdoor({
  scopes: [
    { id: "weather.read", description: "Read the weather" },
    { id: "forecast.read", description: "Read the forecast" },
    { id: "radar.read", description: "Read the radar", price: "$0.001/req" },
  ],
  service: { name: "Weather", description: "A service for tests" },
  rateLimit: { requests: 1000, window: "1h" },
  mode: "test",
}));
app.get("/whoami", (req, res) => {
  if (!req.isAgent) {
    res.status(401).json({ error: "unauthorized", message: "Register first" });
    return;
  }
  res.json({ agent_id: req.agent.id, scopes: req.agent.scopes });
});

const server = app.listen(0, "127.0.0.1", () => {
  process.stdout.write(`http://127.0.0.1:${server.address().port}\n`);
});
process.stdin.resume();
process.stdin.on("end", () => {
  server.closeAllConnections();
  server.close();
});
