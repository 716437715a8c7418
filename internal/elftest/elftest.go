// Package elftest makes ELF files for tests: what a dynamic loader reads of a program or
// library, and nothing that could run.
package elftest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// A File is what a loader reads.
type File struct {
	Interpreter string
	Needed      []string // sonames
	RunPath     string
}

// Bytes returns the file, for x86-64.
func (f File) Bytes() []byte {
	strs := []byte{0}
	text := func(s string) uint64 {
		at := len(strs)
		strs = append(append(strs, s...), 0)
		return uint64(at)
	}
	var dyn []elf.Dyn64
	for _, soname := range f.Needed {
		dyn = append(dyn, elf.Dyn64{Tag: int64(elf.DT_NEEDED), Val: text(soname)})
	}
	if f.RunPath != "" {
		dyn = append(dyn, elf.Dyn64{Tag: int64(elf.DT_RUNPATH), Val: text(f.RunPath)})
	}
	dyn = append(dyn, elf.Dyn64{})

	const headerSize, progSize = 64, 56
	interp := append([]byte(f.Interpreter), 0)
	atInterp := uint64(headerSize + progSize)
	atStrs := atInterp + uint64(len(interp))
	atDyn := (atStrs + uint64(len(strs)) + 7) &^ 7
	atSections := atDyn + uint64(16*len(dyn))

	h := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: headerSize, Shoff: atSections,
		Ehsize: headerSize, Phentsize: progSize, Shentsize: 64, Shnum: 3, Shstrndx: 1,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	if f.Interpreter != "" {
		h.Phnum = 1
	}
	var b bytes.Buffer
	write := func(at uint64, v any) {
		b.Write(make([]byte, at-uint64(b.Len())))
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic("elftest: " + err.Error()) // of values without a fixed size
		}
	}
	write(0, h)
	write(headerSize, elf.Prog64{Type: uint32(elf.PT_INTERP), Off: atInterp, Filesz: uint64(len(interp))})
	write(atInterp, interp)
	write(atStrs, strs)
	write(atDyn, dyn)
	write(atSections, [3]elf.Section64{
		{},
		{Type: uint32(elf.SHT_STRTAB), Off: atStrs, Size: uint64(len(strs))},
		{Type: uint32(elf.SHT_DYNAMIC), Off: atDyn, Size: uint64(16 * len(dyn)), Link: 1, Entsize: 16},
	})
	return b.Bytes()
}
