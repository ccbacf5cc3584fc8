// Stream a chat with openai-go and print what came of it as JSON: main BASE_URL KEY MODEL.
package main

import (
	"context"
	"encoding/json"
	"os"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

type report struct {
	Chunks int    `json:"chunks"`
	Text   string `json:"text"`
	Error  string `json:"error"`
}

func main() {
	client := openai.NewClient(option.WithBaseURL(os.Args[1]), option.WithAPIKey(os.Args[2]), option.WithMaxRetries(0))
	slow := option.WithJSONSet("sim", map[string]int{"tokens": 4, "token_ms": 500})
	var done report
	stream := client.Chat.Completions.NewStreaming(context.Background(), openai.ChatCompletionNewParams{
		Model:    os.Args[3],
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Hallo Welt ✓")},
	}, slow)
	for stream.Next() {
		chunk := stream.Current()
		done.Chunks++
		if len(chunk.Choices) > 0 {
			done.Text += chunk.Choices[0].Delta.Content
		}
	}
	if err := stream.Err(); err != nil {
		done.Error = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(done)
}
