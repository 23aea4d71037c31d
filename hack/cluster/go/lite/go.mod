module tools/lite

go 1.26.0
