// The AI SDK with DeepSeek's provider: ai_sdk.mjs URL KEY
import { createDeepSeek } from "@ai-sdk/deepseek";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { check, equal, key, run, test, url } from "./runner.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const deepseek = createDeepSeek({ baseURL: `${url}/v1`, apiKey: key });
const SUM = "What is 7 + 5?";
const CITIES = "How is the weather in Beijing? How is the weather in Paris?";
const ask = (prompt, fields) => ({ model: deepseek("default"), temperature: 0, maxRetries: 0, prompt, ...fields });
const THINK = { providerOptions: { deepseek: { thinking: { type: "enabled" } } } };
const weather = (execute) => tool({
  description: "Get weather of a city",
  inputSchema: z.object({ city: z.string().describe("The city name") }),
  execute,
});

test("chat", async () => {
  const { text, finishReason, usage } = await generateText(ask(SUM));
  check(text.endsWith("7 + 5 = 12."), text);
  equal(finishReason, "stop");
  check(usage.inputTokens > 0 && usage.outputTokens > 0, usage);
});

test("stream", async () => {
  const result = streamText(ask(SUM));
  let text = "";
  for await (const part of result.textStream) text += part;
  equal(text, (await generateText(ask(SUM))).text);
  check((await result.usage).outputTokens > 0);
});

test("reasoning", async () => {
  const whole = await generateText(ask(SUM, THINK));
  check(whole.reasoningText, whole);
  check(whole.text.endsWith("7 + 5 = 12."), whole.text);
  const result = streamText(ask(SUM, THINK));
  await result.consumeStream();
  equal([await result.reasoningText, await result.text], [whole.reasoningText, whole.text]);
});

test("parallel_tools", async () => {
  const expected = [{ city: "Beijing" }, { city: "Paris" }];
  const { toolCalls } = await generateText(ask(CITIES, { tools: { query_weather: weather() } }));
  equal(toolCalls.map((call) => call.input), expected);
  const result = streamText(ask(CITIES, { tools: { query_weather: weather() } }));
  await result.consumeStream();
  equal((await result.toolCalls).map((call) => call.input), expected);
});

test("tools_are_run_and_answered", async () => {
  const execute = async () => ({ weather: "sunny", temperature: 21 });
  const { text, steps } = await generateText(
    ask("How is the weather in Beijing?", { tools: { query_weather: weather(execute) }, stopWhen: stepCountIs(3) }));
  equal(steps.length, 2);
  check(text.includes("sunny"), text);
});

// The provider asks for any JSON object, and tells the schema in words, which a small model does not keep.
test("json", async () => {
  const schema = z.object({ answer: z.number().int() });
  const { object } = await generateObject(ask(`${SUM} Answer in JSON.`, { schema, maxOutputTokens: 200 })).catch(
    (error) => ({ object: JSON.parse(error.text) }));
  check(object !== null && typeof object === "object", object);
});

await run("ai_sdk_deepseek");
