package filestore

import (
	"slices"
	"strings"
)

// what a provider type means for drsync.
type nature uint8

const (
	files    nature = iota + 1 // the bytes are local files
	wrapper                    // passes everything on to the one provider it wraps
	waiting                    // a wrapper with a directory of blobs that are not yet further down
	shards                     // spreads over several providers
	database                   // the bytes are rows
	bucket                     // the bytes are in an object store
	cluster                    // the bytes are on several nodes
	hadoop
	foreign // reads other people's directories
)

func providerTypes() map[string]nature {
	return map[string]nature{
		"file-system": files, "state-aware": files, "sharding-file-system": files,
		"cache-fs": wrapper, "retry": wrapper,
		"eventual": waiting, "eventual-cluster": waiting,
		"sharding": shards, "redundant": shards,
		"blob": database,
		"s3":   bucket, "s3Old": bucket, "s3-storage-v3": bucket, "s3-storage-v3-archive": bucket, "state-aware-s3": bucket,
		"google-storage": bucket, "google-storage-v2": bucket,
		"azure-blob-storage": bucket, "azure-blob-storage-v2": bucket,
		"sharding-cluster": cluster, "remote": cluster,
		"hdfs":     hadoop,
		"external": foreign, "external-wrapper": foreign,
	}
}

// template returns what a chain template stands for, with the settings that the
// application gives it.
func template(name string) (Provider, bool) {
	t, ok := templates()[name]
	return t, ok
}

func templateNames() string {
	var names []string
	for name := range templates() {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func templates() map[string]Provider {
	all := map[string]Provider{
		"file-system":    wrap("file-system"),
		"cache-fs":       wrap("cache-fs", "file-system"),
		"full-db":        wrap("cache-fs", "blob"),
		"full-db-direct": wrap("blob"),

		"s3-storage-v3-direct":         wrap("cache-fs", "s3-storage-v3"),
		"s3-storage-v3-archive":        wrap("s3-storage-v3-archive", "s3-storage-v3"),
		"google-storage-v2-direct":     wrap("cache-fs", "google-storage-v2"),
		"azure-blob-storage-direct":    wrap("cache-fs", "azure-blob-storage"),
		"azure-blob-storage-v2-direct": wrap("cache-fs", "azure-blob-storage-v2"),

		"double-shards":    sharded("1", "state-aware", "shard-fs-1", "shard-fs-2"),
		"redundant-shards": sharded("2", "state-aware", "shard-state-aware-1", "shard-state-aware-2"),
		"s3-sharding":      sharded("2", "state-aware-s3", "shard-s3-1", "shard-s3-2"),

		"cluster-file-system": clustered("", Provider{ID: "state-aware", Type: "state-aware", Role: Sub, Settings: map[string]string{"zone": "local"}}),
	}
	for _, store := range []string{"s3", "s3Old", "s3-storage-v3", "google-storage", "google-storage-v2", "azure-blob-storage"} {
		all[store] = wrap("cache-fs", "eventual", "retry", store)
	}
	for _, store := range []string{"s3", "s3-storage-v3", "google-storage", "google-storage-v2", "azure-blob-storage", "azure-blob-storage-v2"} {
		all["cluster-"+store] = clustered("-eventual-"+store, Provider{
			ID: "eventual-cluster-" + store, Type: "eventual-cluster", Role: Sub,
			Children: []Provider{{ID: "retry-" + store, Type: "retry", Role: Plain, Children: []Provider{wrap(store)}}},
		})
	}
	return all
}

// wrap nests providers whose id is their type, the first outermost.
func wrap(types ...string) Provider {
	p := Provider{ID: types[0], Type: types[0], Role: Plain}
	if len(types) > 1 {
		p.Children = []Provider{wrap(types[1:]...)}
	}
	return p
}

func sharded(redundancy, shardType string, ids ...string) Provider {
	s := Provider{ID: "sharding", Type: "sharding", Role: Plain, Settings: map[string]string{"redundancy": redundancy}}
	for _, id := range ids {
		shard := Provider{ID: id, Type: shardType, Role: Sub}
		if shardType == "state-aware" {
			shard.Settings = map[string]string{"fileStoreDir": id}
		}
		s.Children = append(s.Children, shard)
	}
	return Provider{ID: "cache-fs", Type: "cache-fs", Role: Plain, Children: []Provider{s}}
}

func clustered(suffix string, sub Provider) Provider {
	remote := Provider{ID: "remote" + strings.TrimPrefix(suffix, "-eventual"), Type: "remote", Role: Dynamic}
	return Provider{ID: "cache-fs" + suffix, Type: "cache-fs", Role: Plain, Children: []Provider{{
		ID: "sharding-cluster" + suffix, Type: "sharding-cluster", Role: Plain,
		Settings: map[string]string{"redundancy": "2", "lenientLimit": "1"},
		Children: []Provider{sub, remote},
	}}}
}
