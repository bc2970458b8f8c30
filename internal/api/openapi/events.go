package openapi

import (
	"slices"

	"coven-gateway/internal/conversation"
)

// An event is what streams and pages of events say. Streams of a send have its payload as data;
// everywhere else an event also says which turn and thread it belongs to.
type event struct {
	name    string
	schema  string // the schemas are called so, with Data and with Event behind it
	text    string
	payload fields
}

// events are all kinds of events.
var events = []event{
	{"message", "Message", "What somebody has said. It begins a turn.", fields{
		{"sender", str, "on whose behalf"},
		{"content", str, ""},
		{"attachments", list(ref("File")), ""},
	}},
	{"text", "Text", "An increment of the answer. Neighbouring ones come merged to a reader that is slow.", fields{
		{"text", str, ""},
	}},
	{"thinking", "Thinking", "An increment of what the agent thinks, or a line about what it does.", fields{
		{"text", str, ""},
	}},
	{"tool_use", "ToolUse", "The agent calls a tool.", fields{
		{"id", str, "the call, as the agent names it"},
		{"name", str, "the tool"},
		{"input_json", str, "its arguments, JSON as the agent wrote it"},
	}},
	{"tool_state", "ToolState", "A step in the life of a tool call.", fields{
		{"id", str, "the call"},
		{"state", toolState, ""},
		{"detail", str, ""},
	}},
	{"tool_result", "ToolResult", "What a tool has returned.", fields{
		{"id", str, "the call"},
		{"output", str, ""},
		{"is_error", boolean, ""},
	}},
	{"tool_approval", "ToolApproval", "The agent asks whether it may run a tool. Answer with `POST /api/tools/approve`.", fields{
		{"id", str, "the call; `tool_id` of the answer"},
		{"name", str, "the tool"},
		{"input_json", str, "its arguments, JSON as the agent wrote it"},
		{"request_id", str, "the turn"},
		{"expires_at?", moment, "when it is denied unless somebody answers"},
	}},
	{"tool_decision", "ToolDecision", "Somebody has answered a `tool_approval`; or the approval policy has, before anybody was asked.", fields{
		{"id", str, "the call"},
		{"approved", boolean, ""},
		{"approve_all", boolean, "it holds for the rest of the turn"},
		{"by", str, "who has answered, for people; `policy` or `timeout` where nobody did"},
		{"request_id", str, "the turn"},
		{"name?", str, "the tool, where nobody was asked"},
		{"input_json?", str, "its arguments, where nobody was asked"},
	}},
	{"user_question", "UserQuestion", "The agent asks people. Answer with `POST /api/questions/answer`.", fields{
		{"question_id", str, ""},
		{"question", str, ""},
		{"header", str, "a short title; may be empty"},
		{"options", list(ref("QuestionOption")), "what can be chosen; own words are an answer, too"},
		{"multi_select", boolean, "more than one can be chosen"},
		{"timeout_seconds", number, "how long the agent waits"},
		{"request_id", str, "the turn"},
	}},
	{"question_answered", "QuestionAnswered", "Nobody has to answer a `user_question` any more.", fields{
		{"question_id", str, ""},
		{"selected", words, "labels of options"},
		{"custom_text", str, ""},
		{"by", str, "who has answered, for people; empty where nobody has"},
		{"reason", oneOf("", conversation.ReasonTimeout, conversation.ReasonNoResponse), "why nobody has"},
		{"request_id", str, "the turn"},
	}},
	{"tool_run", "ToolRun", "The gateway has run a tool in the turn. The agent tells of it by itself, too, with ids of its own.", fields{
		{"id", str, "of the call, as the gateway's log names it"},
		{"name", str, ""},
		{"pack", str, "that has the tool; empty where there is no such tool"},
		{"result", str, "`ok`, or the code of the failure"},
		{"duration_us", number, "in microseconds, with the time that people took to approve it"},
	}},
	{"file", "File", "The agent has produced a file.", file},
	{"usage", "Usage", "Tokens that were spent since the last such event.", usage},
	{"session_init", "SessionInit", "Which session of its backend the agent uses for the thread.", fields{
		{"session_id", str, ""},
	}},
	{"session_orphaned", "SessionOrphaned", "The session of the backend is lost; the turn goes on.", fields{
		{"reason", str, ""},
	}},
	{"warning", "Warning", "The agent has reported a problem, or has said nothing for long, and may go on.", fields{
		{"error", str, ""},
	}},
	{"queued", "Queued", "The message waits for its agent.", fields{
		{"until", moment, "then the turn ends"},
	}},
	{"delivered", "Delivered", "The agent gets the message that has waited.", fields{}},
	{"done", "Done", "The end: the agent is done.", fields{
		{"full_response", str, "the answer as the agent gives it at the end; may be empty or differ from the text"},
	}},
	{"error", "Error", "The end: the turn has failed, or was interrupted.", fields{
		{"error", str, "why"},
		{"recoverable", boolean, "the agent or the gateway went away, or did not come; a retry makes sense"},
	}},
	{"canceled", "Canceled", "The end: somebody has stopped the turn.", fields{
		{"reason", str, ""},
	}},
}

// removals are what streams and pages say of what is not there any more. They belong to no turn. The first
// one may be on the stream of a send, too.
var removals = []event{
	{"removed", "Removed", "Events were removed that the reader has not had. A stream of one turn ends with it: the turn is gone.", fields{
		{"first_seq", number, "the number of the first one"},
		{"seq", number, "the number of the last one"},
	}},
	{"thread_deleted", "ThreadDeleted", "A thread was deleted while the reader followed. It has no number, and no `id`.", fields{
		{"thread_id", str, "empty when there were too many to name"},
	}},
}

// started is the first event of the stream of a send.
var started = event{"started", "Started", "The message is stored and its turn has begun.", fields{
	{"agent_id", str, ""},
	{"thread_id", str, "where to go on"},
	{"request_id", str, "the turn"},
}}

var toolState = oneOf("pending", "awaiting_approval", "running", "completed", "failed", "denied", "timeout", "canceled", "unknown")

// envelope is what every event has that is not on the stream of a send.
var envelope = fields{
	{"seq", number, "its number in the agent's conversation"},
	{"first_seq?", number, "of merged increments the number of the first one"},
	{"request_id", str, "the turn"},
	{"thread_id", str, ""},
	{"time", moment, "when the gateway took it in"},
}

// sendEvents are the events of the stream of a send, by name, and the schemas of their data.
func sendEvents() object {
	o := object{{started.name, ref(started.schema + "Data")}}
	for _, e := range events[1:] {
		o = o.with(e.name, ref(e.schema+"Data"))
	}
	return o.with(removals[0].name, ref(removals[0].schema+"Data"))
}

// allEvents are the events of all other streams.
func allEvents() object {
	o := object{}
	for _, e := range slices.Concat(events, removals) {
		o = o.with(e.name, ref(e.schema+"Event"))
	}
	return o
}

// eventSchemas are the schemas of all events, and that of one of them.
func eventSchemas() object {
	o := object{{started.schema + "Data", record(started.text, started.payload...)}}
	var choice []object
	mapping := object{}
	for _, e := range events {
		if e.name != "message" {
			o = o.with(e.schema+"Data", record(e.text, e.payload...))
		}
		all := fields{{"type", object{{"const", e.name}}, ""}}.and(envelope...)
		for _, f := range e.payload {
			if f.name != "request_id" { // the envelope has it
				all = all.and(f)
			}
		}
		o = o.with(e.schema+"Event", record(e.text, all...))
		choice = append(choice, ref(e.schema+"Event"))
		mapping = mapping.with(e.name, "#/components/schemas/"+e.schema+"Event")
	}
	o = o.with(removals[0].schema+"Data", record(removals[0].text, removals[0].payload...))
	for _, e := range removals {
		o = o.with(e.schema+"Event", record(e.text, fields{{"type", object{{"const", e.name}}, ""}}.and(e.payload...)...))
		choice = append(choice, ref(e.schema+"Event"))
		mapping = mapping.with(e.name, "#/components/schemas/"+e.schema+"Event")
	}
	return o.with("Event", object{
		{"description", "A record of a conversation."},
		{"oneOf", choice},
		{"discriminator", object{{"propertyName", "type"}, {"mapping", mapping}}},
	})
}
