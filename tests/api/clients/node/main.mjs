// Stream a chat with openai-node and print what came of it as JSON: main.mjs BASE_URL KEY MODEL.
import OpenAI from "openai";

const [baseURL, apiKey, model] = process.argv.slice(2);
const done = { chunks: 0, text: "", error: "" };
try {
  const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  const messages = [{ role: "user", content: "Hallo Welt ✓" }];
  const sim = { tokens: 4, token_ms: 500 };
  for await (const chunk of await client.chat.completions.create({ model, messages, sim, stream: true })) {
    done.chunks += 1;
    done.text += chunk.choices[0]?.delta?.content ?? "";
  }
} catch (error) {
  done.error = String(error);
}
console.log(JSON.stringify(done));
