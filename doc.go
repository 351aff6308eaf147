package mmapio
