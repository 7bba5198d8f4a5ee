package driverfiles

// OfControlNode are those that a control node serves; none: all.
func OfControlNode(node string) []Capability {
	switch node {
	case "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools":
		return []Capability{Compute, Video, Graphics}
	case "/dev/nvidia-modeset":
		return []Capability{Graphics, Display}
	}
	return nil
}

// OfDRM are those that the DRM nodes of a GPU serve.
var OfDRM = []Capability{Graphics, Display, Video}
