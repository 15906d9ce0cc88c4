// The official openai client of npm: openai.mjs URL KEY
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { check, collect, equal, key, run, test, url } from "./runner.mjs";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, timeout: 60000 });
const SUM = [{ role: "user", content: "What is 7 + 5?" }];
const WEATHER = [{ role: "user", content: "How is the weather in Beijing? How is the weather in Paris?" }];
const CITIES = [{ city: "Beijing" }, { city: "Paris" }];
const PARAMETERS = {
  type: "object",
  properties: { city: { type: "string", description: "The city name" } },
  required: ["city"],
};
const FUNCTION = { name: "query_weather", description: "Get weather of a city", parameters: PARAMETERS };
const TOOLS = [{ type: "function", function: FUNCTION }];
const Sum = z.object({ answer: z.number().int(), unit: z.string() });
const chat = (messages, fields) =>
  client.chat.completions.create({ model: "default", temperature: 0, messages, ...fields });
const respond = (input, fields) => client.responses.create({ model: "default", temperature: 0, input, ...fields });

test("chat", async () => {
  const answer = await chat(SUM);
  check(answer.choices[0].message.content.endsWith("7 + 5 = 12."), answer.choices[0].message.content);
  equal(answer.choices[0].finish_reason, "stop");
  equal(answer.usage.prompt_cache_hit_tokens + answer.usage.prompt_cache_miss_tokens, answer.usage.prompt_tokens);
});

test("chat_stream", async () => {
  const whole = await chat(SUM);
  const chunks = await collect(await chat(SUM, { stream: true, stream_options: { include_usage: true } }));
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  equal(text, whole.choices[0].message.content);
  equal(chunks.at(-1).usage.completion_tokens, whole.usage.completion_tokens);
});

test("reasoning", async () => {
  const message = (await chat(SUM, { reasoning_effort: "low" })).choices[0].message;
  check(message.reasoning_content, message);
  const stream = client.chat.completions.stream({ model: "default", temperature: 0, messages: SUM, reasoning_effort: "low" });
  equal((await stream.finalChatCompletion()).choices[0].message.content, message.content);
});

test("parallel_tools", async () => {
  const calls = (await chat(WEATHER, { tools: TOOLS })).choices[0].message.tool_calls;
  equal(calls.map((call) => JSON.parse(call.function.arguments)), CITIES);
  const stream = client.chat.completions.stream({ model: "default", temperature: 0, messages: WEATHER, tools: TOOLS });
  const streamed = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
  equal(streamed.map((call) => call.function.arguments), calls.map((call) => call.function.arguments));
});

test("tools_are_run_and_answered", async () => {
  const asked = [];
  const runner = client.chat.completions.runTools({
    model: "default",
    temperature: 0,
    messages: [{ role: "user", content: "How is the weather in Beijing?" }],
    tools: [{
      type: "function",
      function: { ...FUNCTION, parse: JSON.parse, function: (given) => {
        asked.push(given);
        return '{"weather": "sunny", "temperature": 21}';
      } },
    }],
  });
  const content = await runner.finalContent();
  equal(asked, [{ city: "Beijing" }]);
  check(content.includes("21"), content);
});

test("json_schema", async () => {
  const fields = { model: "default", temperature: 0, messages: SUM, max_tokens: 200 };
  const answer = await client.chat.completions.parse({ ...fields, response_format: zodResponseFormat(Sum, "sum") });
  equal(Object.keys(answer.choices[0].message.parsed), ["answer", "unit"]);
  const Counts = z.object({ counts: z.record(z.string(), z.int()) });
  const schema = z.toJSONSchema(Counts);
  equal(schema.properties.counts.propertyNames, { type: "string" });
  // The demo model has no end of members.
  const record = await client.chat.completions.create({
    ...fields, max_tokens: 20, response_format: { type: "json_schema", json_schema: { name: "counts", strict: true, schema } } });
  check(/^\{\s*"counts":\s*\{/.test(record.choices[0].message.content), record.choices[0].message.content);
});

test("responses", async () => {
  const answer = await respond("What is 7 + 5?", { reasoning: { effort: "low" } });
  equal(answer.output.map((item) => item.type), ["reasoning", "message"]);
  check(answer.output_text.endsWith("7 + 5 = 12."), answer.output_text);
  const calls = (await respond(WEATHER, { tools: [{ type: "function", strict: false, ...FUNCTION }] })).output;
  equal(calls.map((call) => JSON.parse(call.arguments)), CITIES);
});

test("responses_stream", async () => {
  const fields = { model: "default", temperature: 0, input: "What is 7 + 5?", max_output_tokens: 200 };
  const stream = client.responses.stream(fields);
  const events = await collect(stream);
  equal(events.at(-1).type, "response.completed");
  equal((await stream.finalResponse()).output_text, (await respond("What is 7 + 5?")).output_text);
  const parsed = await client.responses.parse({ ...fields, text: { format: zodTextFormat(Sum, "sum") } });
  equal(Object.keys(parsed.output_parsed), ["answer", "unit"]);
});

test("errors", async () => {
  const refused = await chat(SUM, { top_p: 2 }).catch((error) => error);
  check(refused instanceof OpenAI.BadRequestError, refused);
  equal(refused.param, "top_p");
  const unknown = await chat(SUM, { model: "gpt-9" }).catch((error) => error);
  check(unknown instanceof OpenAI.NotFoundError, unknown);
});

await run("npm_openai");
