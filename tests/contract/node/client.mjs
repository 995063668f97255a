// The official OpenAI client for Node, used as an app would; prints what it saw as one JSON object.
import OpenAI from 'openai';

const client = new OpenAI({ baseURL: process.argv[2], apiKey: 'unused', maxRetries: 1 });
const ask = (content, more = {}) => ({
  model: 'm',
  messages: [{ role: 'user', content }],
  ...more,
});
const seen = {};

const whole = await client.chat.completions.create(ask('why do wolves howl?'));
seen.whole = [whole.choices[0].message.content, whole.choices[0].finish_reason];
seen.requestId = whole._request_id;

async function streamed(content) {
  let text = '';
  let finish = null;
  let usage = null;
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await client.chat.completions.create(ask(content, options))) {
    text += chunk.choices[0]?.delta?.content ?? '';
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  return [text, finish, usage?.total_tokens];
}
seen.streamed = await streamed('why do wolves howl?');
seen.blocked = await streamed('a zorblat please');

const runner = client.chat.completions.stream(ask('why do wolves howl?'));
seen.helper = await runner.finalContent();

const response = await client.responses.create({ model: 'm', input: 'why do wolves howl?' });
seen.response = [response.output_text, response.status];
let deltas = '';
let last = null;
for await (const event of await client.responses.create({ model: 'm', input: 'hi', stream: true })) {
  if (event.type === 'response.output_text.delta') deltas += event.delta;
  last = event.type;
}
seen.responseStream = [deltas, last];

try {
  await client.chat.completions.create(ask('hi', { temperature: 9 }));
} catch (error) {
  seen.error = [error.constructor.name, error.status, error.param, error.code];
}
try {
  await client.models.retrieve('no-such-model');
} catch (error) {
  seen.missing = [error.constructor.name, error.status, error.code];
}
seen.models = [];
for await (const model of client.models.list()) seen.models.push(model.id);
seen.moderation = (await client.moderations.create({ input: 'a zorblat' })).results[0].flagged;
seen.embedding = (
  await client.embeddings.create({ model: 'm', input: 'hi', encoding_format: 'float' })
).data[0].embedding;

console.log(JSON.stringify(seen));
