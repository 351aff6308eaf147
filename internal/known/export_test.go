package known

// The first page whose block is in a part, and how many pages a part is about.
const (
	NearPages = nearBlocks * blockPages
	PartPages = partBlocks * blockPages
)
