-- Rows as the public gateway leaves them behind.
INSERT INTO principals VALUES
 ('client-lq1-0001', 'client', '', 'Ada', 'approved', '2026-01-05T09:00:00Z', '2026-03-01T10:00:00Z', NULL),
 ('agent-lq1-0002', 'agent', 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', 'laptop', 'offline', '2026-01-05T09:01:00Z', NULL, '{"os":"linux"}'),
 ('agent-lq1-0003', 'agent', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'laptop again', 'online', '2026-01-05T09:02:00Z', NULL, NULL),
 ('agent-lq1-0004', 'agent', 'BBBBbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 'phone', 'pending', '2026-01-05T09:03:00Z', NULL, NULL),
 ('pack-lq1-0005', 'pack', 'not a fingerprint', 'tools', 'revoked', '2026-01-05T03:04:00-06:00', NULL, NULL);
INSERT INTO roles VALUES
 ('principal', 'client-lq1-0001', 'owner', '2026-01-05T09:00:00Z'),
 ('principal', 'agent-lq1-0002', 'member', '2026-01-05T09:01:00Z'),
 ('principal', 'agent-lq1-0003', 'leader', '2026-01-05T09:02:00Z'),
 ('principal', 'nobody', 'admin', '2026-01-05T09:02:00Z'),
 ('member', 'client-lq1-0001', 'admin', '2026-01-05T09:02:00Z');
INSERT INTO bindings VALUES
 ('b1', 'matrix', '!room:example.org', 'agent-lq1-0003', '/home/ada/w', '2026-01-06T09:00:00Z', 'client-lq1-0001'),
 ('b2', 'slack', 'C0001', 'helper', NULL, '2026-01-06T09:00:01Z', NULL),
 ('b3', 'slack', 'C0002', 'gone', NULL, '2026-01-06T09:00:02Z', NULL);
INSERT INTO threads VALUES
 ('t-matrix', 'matrix', '!room:example.org', 'notes', '2026-01-06T09:10:00Z', '2026-01-06T09:10:00Z'),
 ('t-direct', 'direct', 't-direct', 'notes', '2026-01-06T10:00:00Z', '2026-01-06T10:00:00Z'),
 ('t-empty', 'direct', 't-empty', 'notes', '2026-01-06T10:00:00Z', '2026-01-06T10:00:00Z'),
 ('t-legacy', 'slack', 'C9', 'elder', '2025-06-01T10:00:00Z', '2025-06-01T10:00:00Z'),
 ('notes', 'webadmin', 'notes', 'notes', '2026-01-07T10:00:00Z', '2026-01-07T10:00:00Z');

-- HTTP, all in one second and in the order of random ids: question, call, result, call, result, answer.
INSERT INTO ledger_events (event_id, conversation_key, thread_id, direction, author, timestamp, type, text) VALUES
 ('a1', 'notes', 't-matrix', 'outbound_from_agent', 'agent:notes', '2026-01-06T03:10:01-06:00', 'message', 'There are three files — größer als gestern 🗂️.'),
 ('a2', 'notes', 't-matrix', 'outbound_from_agent', 'agent:notes', '2026-01-06T03:10:01-06:00', 'tool_result', '{"id":"t1","output":"a.txt\nb.txt\x01","is_error":false}'),
 ('a3', 'notes', 't-matrix', 'outbound_from_agent', 'agent:notes', '2026-01-06T03:10:01-06:00', 'tool_call', '{"name":"list","id":"t1","input":{"path": "/w"}}'),
 ('a4', 'notes', 't-matrix', 'outbound_from_agent', 'agent:notes', '2026-01-06T03:10:01-06:00', 'tool_call', '{"name":"read","id":"t2","input":}'),
 ('a5', 'notes', 't-matrix', 'inbound_to_agent', '@ada:example.org', '2026-01-06T03:10:01-06:00', 'message', 'How many files are there?
And which?'),
 ('a6', 'notes', 't-matrix', 'outbound_from_agent', 'agent:notes', '2026-01-06T03:10:01-06:00', 'tool_result', '{"id":"t2","output":"no such \"file\"","is_error":true}');
-- Half an hour later in another zone; as text it comes first. Two turns in one second, as inserted.
INSERT INTO ledger_events (event_id, conversation_key, thread_id, direction, author, timestamp, type, text, actor_principal_id) VALUES
 ('a7', 'notes', 't-matrix', 'inbound_to_agent', '@ada:example.org', '2026-01-06T09:40:00Z', 'message', 'One?', 'client-lq1-0001'),
 ('a8', 'notes', 't-matrix', 'outbound_from_agent', 'agent:notes', '2026-01-06T09:40:00Z', 'message', 'Uno.', NULL),
 ('a9', 'notes', 't-matrix', 'inbound_to_agent', '@ada:example.org', '2026-01-06T09:40:00Z', 'message', 'Two?', NULL),
 ('aa', 'notes', 't-matrix', 'outbound_from_agent', 'agent:notes', '2026-01-06T09:40:00Z', 'message', 'Due.', NULL),
 ('ab', 'notes', 't-matrix', 'inbound_to_agent', '@ada:example.org', '2026-01-06T09:41:00Z', 'message', 'Nobody answers this.', NULL);
-- Another thread of the same agent at the same time; texts that nobody can read, a long one, and an
-- answer whose question was never stored.
INSERT INTO ledger_events (event_id, conversation_key, thread_id, direction, author, timestamp, type, text) VALUES
 ('b1', 'notes', 't-direct', 'inbound_to_agent', 'me', '2026-01-06T09:40:00Z', 'message', 'Write a lot.'),
 ('b2', 'notes', 't-direct', 'outbound_from_agent', 'agent:notes', '2026-01-06T09:40:00Z', 'tool_call', 'something {else'),
 ('b3', 'notes', 't-direct', 'outbound_from_agent', 'agent:notes', '2026-01-06T09:40:01Z', 'tool_result', '{"id":"t1","output":"cut'),
 ('b4', 'notes', 't-direct', 'outbound_from_agent', 'agent:notes', '2026-01-06T09:40:02Z', 'system', 'compacting'),
 ('b5', 'notes', 't-direct', 'outbound_from_agent', 'agent:notes', '2026-01-06T09:40:03Z', 'message', printf('%.*c', 16384, 'x')),
 ('b6', 'notes', 't-direct', 'outbound_from_agent', 'agent:notes', '2026-01-06T09:50:00Z', 'message', 'This answers something else.');
-- A thread that another agent has used.
INSERT INTO ledger_events (event_id, conversation_key, thread_id, direction, author, timestamp, type, text) VALUES
 ('c1', 'helper', 't-direct', 'inbound_to_agent', 'me', '2026-01-06T11:00:00Z', 'message', 'And you?'),
 ('c2', 'helper', 't-direct', 'outbound_from_agent', 'agent:helper', '2026-01-06T11:00:05Z', 'message', 'Me too.');
-- gRPC: other authors and forms, no row in threads, errors.
INSERT INTO ledger_events (event_id, conversation_key, thread_id, direction, author, timestamp, type, text) VALUES
 ('d1', 'helper', 'helper', 'inbound_to_agent', 'client', '2026-01-08T08:00:00+01:00', 'message', 'What time is it?'),
 ('d2', 'helper', 'helper', 'outbound_from_agent', 'agent', '2026-01-08T08:00:01+01:00', 'tool_call', 'tool:clock input:{"tz":"Europe/Berlin"}'),
 ('d3', 'helper', 'helper', 'outbound_from_agent', 'agent', '2026-01-08T08:00:01+01:00', 'tool_result', '{"id":"x","output":"08:00","is_error":false}'),
 ('d4', 'helper', 'helper', 'outbound_from_agent', 'agent', '2026-01-08T08:00:02+01:00', 'message', 'Eight.'),
 ('d5', 'helper', 'helper', 'inbound_to_agent', 'client', '2026-01-08T07:30:00Z', 'message', 'Are you there?'),
 ('d6', 'helper', 'helper', 'outbound_from_agent', 'system', '2026-01-08T07:30:00Z', 'error', 'agent not found'),
 ('d7', 'helper', 'helper', 'inbound_to_agent', 'client', '2026-01-08T07:31:00Z', 'message', ''),
 ('d8', 'helper', 'helper', 'outbound_from_agent', 'agent', '2026-01-08T07:31:01Z', 'error', 'rate limited, going on'),
 ('d9', 'helper', 'helper', 'outbound_from_agent', 'agent', '2026-01-08T07:31:02Z', 'message', 'Now I am.');
-- Copied from the old table of messages, without threads; one whose thread is gone.
INSERT INTO ledger_events (event_id, conversation_key, thread_id, direction, author, timestamp, type, text) VALUES
 ('e1', 'thread:t-legacy', NULL, 'inbound_to_agent', 'U1', '2025-06-01T10:00:00Z', 'message', 'Old question'),
 ('e2', 'thread:t-legacy', NULL, 'outbound_from_agent', 'elder', '2025-06-01T10:00:09Z', 'tool_call', '{"path":"/etc"}'),
 ('e3', 'elder', NULL, 'outbound_from_agent', 'elder', '2025-06-01T10:00:10Z', 'message', 'Old answer'),
 ('e4', 'thread:t-gone', NULL, 'inbound_to_agent', 'U1', '2025-06-01T10:00:00Z', 'message', 'Nobody knows to whom'),
 ('e5', 'elder', 't-legacy', 'inbound_to_agent', 'U1', 'yesterday', 'message', 'Nobody knows when');
INSERT INTO messages VALUES ('e1', 't-legacy', 'U1', 'Old question', 'message', NULL, NULL, '2025-06-01T10:00:00Z'),
 ('m9', 't-legacy', 'U1', 'Never copied', 'message', NULL, NULL, '2025-06-01T11:00:00Z');

INSERT INTO message_usage VALUES
 ('u1', 't-matrix', 'a1', 'r1', 'notes', 100, 20, 5, 6, 7, '2026-01-06T09:10:01Z'),
 ('u2', 't-matrix', NULL, 'r2', 'notes', 1, 2, 0, 0, 0, '2026-01-06T09:41:05Z'),
 ('u3', 't-direct', 'nothing', 'r3', 'helper', 10, 20, 0, 0, 0, '2026-01-06T11:00:02Z'),
 ('u4', 't-empty', NULL, 'r4', 'notes', 10, 20, 0, 0, 0, '2026-01-06T11:00:02Z');
INSERT INTO secrets VALUES
 ('s1', 'API_KEY', 'for all ✓', NULL, '2026-01-05T09:00:00Z', '2026-01-06T09:00:00Z', 'u-ada'),
 ('s2', 'API_KEY', 'of notes', 'notes', '2026-01-05T09:00:00Z', '2026-01-06T09:00:00Z', NULL),
 ('s3', 'API_KEY', 'no agent', '', '2026-01-05T09:00:00Z', '2026-01-06T09:00:00Z', NULL),
 ('s4', 'LD_PRELOAD', '/tmp/x.so', NULL, '2026-01-05T09:00:00Z', '2026-01-06T09:00:00Z', NULL);
INSERT INTO admin_users VALUES
 ('u-ada', 'ada', '$2a$10$abc', 'Ada L.', '2026-01-05T09:00:00Z'),
 ('u-bob', 'bob', NULL, 'Bob', '2026-01-05T09:00:01Z');
INSERT INTO admin_sessions VALUES ('s', 'u-ada', '2026-01-05T09:00:00Z', '2026-02-05T09:00:00Z');
INSERT INTO webauthn_credentials VALUES ('w', 'u-bob', x'01', x'02', NULL, '[]', 0, '2026-01-05T09:00:00Z');
INSERT INTO link_codes VALUES ('l', 'ABC234', 'cc', 'x', 'pending', '2026-01-05T09:00:00Z', '2026-01-05T09:10:00Z', NULL, NULL, NULL, NULL);
INSERT INTO audit_log VALUES ('x', 'client-lq1-0001', NULL, 'create_token', 'principal', 'client-lq1-0001', '2026-01-05T09:00:00Z', '{}');
INSERT INTO log_entries VALUES
 ('g1', 'notes', 'did it', '["a","ü"]', '2026-01-06T03:10:01-06:00'),
 ('g2', 'notes', 'again', NULL, '2026-01-06T03:10:02-06:00'),
 ('g3', 'notes', 'and again', 'null', '2026-01-06T03:10:03-06:00');
INSERT INTO todos VALUES ('o1', 'notes', 'buy milk', 'in_progress', 'high', NULL, '2026-02-01T00:00:00Z', '2026-01-06T03:10:01-06:00', '2026-01-06T03:10:02-06:00');
INSERT INTO bbs_posts VALUES
 ('p2', 'helper', 'p1', NULL, 'hello', '2026-01-06T03:11:00-06:00'),
 ('p1', 'notes', NULL, 'Hi', 'anybody?', '2026-01-06T03:10:01-06:00'),
 ('p3', 'helper', 'p9', NULL, 'lost', '2026-01-06T03:12:00-06:00');
INSERT INTO agent_mail VALUES ('n1', 'notes', 'helper', 'Hi', 'text', '2026-01-06T03:12:00-06:00', '2026-01-06T03:10:01-06:00'),
 ('n2', 'helper', 'nobody', 'Hi', 'text', NULL, '2026-01-06T03:10:01-06:00');
INSERT INTO agent_notes VALUES ('k1', 'notes', 'k', 'v', '2026-01-06T03:10:01-06:00', '2026-01-06T03:10:02-06:00');
CREATE TABLE mine (x TEXT);
INSERT INTO mine VALUES ('by hand');
