// Verifies one delivery with npm's `standardwebhooks`: JSON {secret, headers, body (base64)} on stdin; exit code 0 or 1.
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const { secret, headers, body } = JSON.parse(readFileSync(0, "utf8"));
try {
  const payload = new Webhook(secret).verify(Buffer.from(body, "base64").toString("utf8"), headers);
  process.stdout.write(JSON.stringify(payload));
} catch (error) {
  process.stderr.write(String(error));
  process.exitCode = 1;
}
