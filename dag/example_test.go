package dag_test

import (
	"fmt"
	"log"

	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/frontend"
)

func ExampleBuild() {
	file, err := frontend.Parse("Containerfile", []byte("ENV GREETING=hello\nRUN echo $GREETING > /greeting\n"))
	if err != nil {
		log.Fatal(err)
	}
	graph, err := dag.Build([]*frontend.File{file}, dag.Options{})
	if err != nil {
		log.Fatal(err)
	}
	keys, err := graph.Keys(dag.Base{Platform: "linux/amd64 debian 12"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, step := range graph.Steps() {
		fmt.Println(keys.Step[step].Short(), step.Text())
	}
	// Output:
	// c32b07ab4d742aee ENV GREETING
	// 79904f54e1422a8f RUN echo $GREETING > /greeting
}
