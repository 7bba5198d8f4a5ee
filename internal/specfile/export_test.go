package specfile

// PublishData is for tests of how files are written, which may be of anything.
var PublishData = publish
