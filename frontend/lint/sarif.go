package lint

import (
	"io"
	"net/url"
	"path/filepath"
)

// SARIF 2.1.0, as far as findings need it:
// https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/sarif-v2.1.0-os.html.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool    sarifTool     `json:"tool"`
		Results []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string       `json:"id"`
		ShortDescription sarifText    `json:"shortDescription"`
		HelpURI          string       `json:"helpUri,omitempty"`
		Default          sarifDefault `json:"defaultConfiguration"`
	}
	sarifDefault struct {
		Level Level `json:"level"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		RuleIndex int             `json:"ruleIndex"`
		Level     Level           `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
		EndLine   int `json:"endLine,omitempty"`
	}
)

// WriteSARIF writes findings as GitHub's code scanning and editors read them.
func WriteSARIF(w io.Writer, findings []Finding, version string) error {
	run := sarifRun{
		Tool:    sarifTool{sarifDriver{Name: "clayer", Version: version}},
		Results: []sarifResult{},
	}
	index := make(map[string]int)
	for _, r := range append(Rules[:len(Rules):len(Rules)], syntaxRule, refusedRule) {
		index[r.Name] = len(run.Tool.Driver.Rules)
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{r.Name, sarifText{r.Doc}, r.URL, sarifDefault{r.Level}})
	}
	for _, f := range findings {
		// A path relative to the current directory is one relative to the repository in CI.
		at := sarifArtifact{(&url.URL{Path: filepath.ToSlash(f.Pos.File)}).String()}
		message := f.Message
		if f.Hint != "" {
			message += ". " + f.Hint
		}
		place := sarifPhysical{Artifact: at}
		if f.Pos.Line > 0 {
			place.Region = &sarifRegion{StartLine: f.Pos.Line, EndLine: f.Pos.End}
		}
		res := sarifResult{
			RuleID: f.Rule, RuleIndex: index[f.Rule], Level: f.Level, Message: sarifText{message},
			Locations: []sarifLocation{{place}},
		}
		run.Results = append(run.Results, res)
	}
	return encode(w, sarifLog{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []sarifRun{run}})
}
