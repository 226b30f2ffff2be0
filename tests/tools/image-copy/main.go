// Command image-copy pushes, pulls and deletes images with the current go.podman.io/image library: the client code of
// the current podman, buildah and skopeo, whose packages in Debian are years older.
//
//	image-copy [-creds USER:PASSWORD] copy SOURCE DESTINATION   every image of an index, digests kept
//	image-copy [-creds USER:PASSWORD] inspect REFERENCE         the manifest, byte for byte, on standard output
//	image-copy [-creds USER:PASSWORD] tags REFERENCE            one tag a line
//	image-copy [-creds USER:PASSWORD] delete REFERENCE
//
// A reference is docker://HOST/NAME:TAG, docker://HOST/NAME@DIGEST, dir:PATH or oci:PATH:TAG. Registries may speak plain
// HTTP. Without -creds the credentials come from $REGISTRY_AUTH_FILE, as with the programs themselves.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "image-copy:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	credentials := flag.String("creds", "", "USER:PASSWORD for every registry")
	flag.Parse()
	system := &types.SystemContext{
		DockerInsecureSkipTLSVerify: types.OptionalBoolTrue,
		AuthFilePath:                os.Getenv("REGISTRY_AUTH_FILE"),
	}
	if *credentials != "" {
		user, password, _ := strings.Cut(*credentials, ":")
		system.DockerAuthConfig = &types.DockerAuthConfig{Username: user, Password: password}
	}
	switch arguments := flag.Args(); {
	case len(arguments) == 3 && arguments[0] == "copy":
		return copyImage(ctx, system, arguments[1], arguments[2])
	case len(arguments) == 2 && arguments[0] == "inspect":
		return inspect(ctx, system, arguments[1])
	case len(arguments) == 2 && arguments[0] == "tags":
		return tags(ctx, system, arguments[1])
	case len(arguments) == 2 && arguments[0] == "delete":
		reference, err := parse(arguments[1])
		if err != nil {
			return err
		}
		return reference.DeleteImage(ctx, system)
	default:
		return errors.New("usage: image-copy [-creds USER:PASSWORD] copy SOURCE DESTINATION | inspect|tags|delete REFERENCE")
	}
}

// parse knows three transports; the library's own table of all of them pulls in daemons and storage drivers.
func parse(name string) (types.ImageReference, error) {
	transport, rest, _ := strings.Cut(name, ":")
	switch transport {
	case "docker":
		return docker.ParseReference(rest)
	case "dir":
		return directory.NewReference(rest)
	case "oci":
		return layout.ParseReference(rest)
	default:
		return nil, fmt.Errorf("%q: the transport is not docker, dir or oci", name)
	}
}

func copyImage(ctx context.Context, system *types.SystemContext, from, to string) error {
	source, err := parse(from)
	if err != nil {
		return err
	}
	destination, err := parse(to)
	if err != nil {
		return err
	}
	policy, err := signature.NewPolicyContext(&signature.Policy{
		Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()},
	})
	if err != nil {
		return err
	}
	_, err = copy.Image(ctx, policy, destination, source, &copy.Options{
		SourceCtx:          system,
		DestinationCtx:     system,
		ImageListSelection: copy.CopyAllImages,
		PreserveDigests:    true,
	})
	return errors.Join(err, policy.Destroy())
}

func inspect(ctx context.Context, system *types.SystemContext, name string) error {
	reference, err := parse(name)
	if err != nil {
		return err
	}
	source, err := reference.NewImageSource(ctx, system)
	if err != nil {
		return err
	}
	manifest, _, err := source.GetManifest(ctx, nil)
	if err == nil {
		_, err = os.Stdout.Write(manifest)
	}
	return errors.Join(err, source.Close())
}

func tags(ctx context.Context, system *types.SystemContext, name string) error {
	reference, err := parse(name)
	if err != nil {
		return err
	}
	names, err := docker.GetRepositoryTags(ctx, system, reference)
	for _, tag := range names {
		fmt.Println(tag)
	}
	return err
}
