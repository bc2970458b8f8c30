// Talks to a gateway as an MCP client: talk.mjs old|new URL. It lists, calls, hears of progress,
// answers what it is asked, and cancels; what it saw is one JSON document on its output.
const [era, url] = process.argv.slice(2)
const saw = { progress: [], asked: [] }
const capabilities = { elicitation: { form: {} } }
const answer = request => {
	saw.asked.push(request.params.message)
	return { action: "accept", content: { choice: "Yes" } }
}

let client, transport, call
if (era == "old") {
	const { Client } = await import("@modelcontextprotocol/sdk/client/index.js")
	const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js")
	const { ElicitRequestSchema } = await import("@modelcontextprotocol/sdk/types.js")
	client = new Client({ name: "test", version: "1" }, { capabilities })
	client.setRequestHandler(ElicitRequestSchema, answer)
	transport = new StreamableHTTPClientTransport(new URL(url))
	call = (params, options) => client.callTool(params, undefined, options)
} else {
	const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client")
	client = new Client({ name: "test", version: "1" }, { capabilities, versionNegotiation: { mode: { pin: "2026-07-28" } } })
	client.setRequestHandler("elicitation/create", answer)
	transport = new StreamableHTTPClientTransport(new URL(url))
	call = (params, options) => client.callTool(params, options)
}
await client.connect(transport)
saw.tools = (await client.listTools()).tools.map(t => t.name)
saw.resources = (await client.listResources()).resources.length
const ask = message => ({ name: "ask_a", arguments: { message } })
saw.answer = await call(ask("work"), { onprogress: p => saw.progress.push(p.message) })
const thread = (await client.listResources()).resources[0]
saw.thread = (await client.readResource({ uri: thread.uri })).contents[0].text
const abort = new AbortController()
try {
	await call(ask("for ever"), { signal: abort.signal, onprogress: () => abort.abort("enough") })
	saw.cancelled = "no"
} catch (e) {
	saw.cancelled = String(e)
}
console.log(JSON.stringify(saw))
await client.close()
