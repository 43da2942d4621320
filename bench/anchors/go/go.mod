module anchors

go 1.27
