package harness

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"

	"google.golang.org/grpc"

	pb "coven-gateway/proto/coven"
)

// relay is the least that can be between an agent and a client: it stores nothing, knows nobody and
// forwards each increment as an event of its own.
type relay struct {
	pb.UnimplementedCovenControlServer
	mu     sync.Mutex
	agents map[string]pb.CovenControl_AgentStreamServer
	turns  map[string]chan *pb.MessageResponse
	next   int
}

// Relay serves as the bare relay until it fails: the least that can be between an agent and a client, which
// benchmarks compare with.
func Relay(grpcAddr, httpAddr string) error {
	r := &relay{agents: map[string]pb.CovenControl_AgentStreamServer{}, turns: map[string]chan *pb.MessageResponse{}}
	l, err := net.Listen("tcp", grpcAddr)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	pb.RegisterCovenControlServer(s, r)
	go func() { _ = s.Serve(l) }()
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/api/send", r.send)
	return http.ListenAndServe(httpAddr, mux)
}

// AgentStream forwards what an agent answers.
func (r *relay) AgentStream(stream pb.CovenControl_AgentStreamServer) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.ServerMessage{Payload: &pb.ServerMessage_Welcome{Welcome: &pb.Welcome{}}}); err != nil {
		return err
	}
	r.mu.Lock()
	r.agents[m.GetRegister().GetAgentId()] = stream
	r.mu.Unlock()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if resp := m.GetResponse(); resp != nil {
			r.mu.Lock()
			ch := r.turns[resp.RequestId]
			r.mu.Unlock()
			ch <- resp
		}
	}
}

func (r *relay) send(w http.ResponseWriter, req *http.Request) {
	var in struct {
		AgentID string `json:"agent_id"`
		Content string
	}
	_ = json.NewDecoder(req.Body).Decode(&in)
	ch := make(chan *pb.MessageResponse, 256)
	r.mu.Lock()
	r.next++
	id := fmt.Sprint(r.next)
	r.turns[id] = ch
	agent := r.agents[in.AgentID]
	err := agent.Send(&pb.ServerMessage{Payload: &pb.ServerMessage_SendMessage{SendMessage: &pb.SendMessage{RequestId: id, ThreadId: id, Content: in.Content}}})
	r.mu.Unlock()
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for m := range ch {
		if d := m.GetDone(); d != nil {
			b, _ := json.Marshal(map[string]string{"full_response": d.FullResponse})
			fmt.Fprintf(w, "event: done\ndata: %s\n\n", b)
			return
		}
		b, _ := json.Marshal(map[string]string{"text": m.GetText()})
		fmt.Fprintf(w, "event: text\ndata: %s\n\n", b)
		w.(http.Flusher).Flush()
	}
}
